//! Finds this node's slice of the pods' subnet.

use std::fmt;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::args::Install;
use crate::kubernetes::Api;
use crate::{files, node};

/// The Node's annotation that names its slice.
pub(super) const ANNOTATION: &str = "cni.vlan-bridge/slice";

/// The slices of a node, one for each address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeSlices {
    pub(super) slices: Vec<IpNet>,
    /// Where they are from, for messages.
    pub(super) source: String,
    /// Whether they are from --slice or --mapping, and not from the Node.
    pub(super) is_by_caller: bool,
}

impl fmt::Display for NodeSlices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", shown(&self.slices), self.source)
    }
}

impl NodeSlices {
    /// For `-o json`.
    pub(super) fn to_json(&self) -> Value {
        let slices: Vec<String> = self.slices.iter().map(IpNet::to_string).collect();
        json!({"slices": slices, "source": self.source})
    }
}

/// Finds the slices in the first source that has some; none if no source knows this node.
///
/// # Errors
/// A source that cannot be read or parsed.
pub(super) fn find(args: &Install, cluster: Option<&Cluster>) -> Result<Option<NodeSlices>> {
    if !args.slice.is_empty() {
        let slices = args.slice.clone();
        return Ok(Some(NodeSlices { slices, source: "--slice".into(), is_by_caller: true }));
    }
    if let Some(chosen) = cluster.and_then(|cluster| cluster.chosen.clone()) {
        return Ok(Some(chosen));
    }
    let Some(path) = &args.mapping else { return Ok(None) };
    let node = node::name(args.node.as_deref())?;
    let own = mapping(path)?.into_iter().find(|(name, _)| *name == node);
    let source = path.display().to_string();
    Ok(own.map(|(_, slices)| NodeSlices { slices, source, is_by_caller: true }))
}

/// Like [`find`], for a list that needs a slice.
///
/// # Errors
/// If no source knows this node.
pub(super) fn choose(args: &Install, cluster: Option<&Cluster>) -> Result<NodeSlices> {
    if let Some(chosen) = find(args, cluster)? {
        return Ok(chosen);
    }
    let node = node::name(args.node.as_deref())?;
    let mut asked = vec!["--slice is not set".to_owned()];
    if cluster.is_some() {
        asked.push(format!("the Node has neither the annotation {ANNOTATION} nor podCIDRs"));
    }
    match &args.mapping {
        Some(path) => asked.push(format!("{} has no line for it", path.display())),
        None => asked.push("--mapping is not set".into()),
    }
    let annotate = match cluster {
        Some(_) => format!("annotate the Node with {ANNOTATION}, "),
        None => String::new(),
    };
    bail!(
        "no slice for node {node}: {}: set --slice CIDR to this node's part of the subnet, {annotate}or set --mapping to a file with a line \"{node} CIDR\"",
        asked.join(", ")
    )
}

/// The mapping file: `NODE SLICE[,SLICE]` on each line. `#` begins a comment.
fn mapping(path: &Path) -> Result<Vec<(String, Vec<IpNet>)>> {
    let content = files::read(path)?.ok_or_else(|| anyhow!("{}: file not found", path.display()))?;
    parse_mapping(&String::from_utf8_lossy(&content)).map_err(|why| anyhow!("{}:{why}", path.display()))
}

fn parse_mapping(text: &str) -> Result<Vec<(String, Vec<IpNet>)>, String> {
    let mut mapping: Vec<(String, Vec<IpNet>)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let (node, slices) = match words[..] {
            [] => continue,
            [node, slices] => (node, slices),
            _ => return Err(format!("{}: {line:?} is not a node name and a slice", index + 1)),
        };
        if mapping.iter().any(|(known, _)| known == node) {
            return Err(format!("{}: node {node} has two lines", index + 1));
        }
        let slices = parse_slices(slices).map_err(|why| format!("{}: {why}", index + 1))?;
        mapping.push((node.to_owned(), slices));
    }
    Ok(mapping)
}

/// Parses one slice, or one for each family separated by a comma.
pub(super) fn parse_slices(text: &str) -> Result<Vec<IpNet>, String> {
    let slice = |text: &str| {
        text.trim().parse().map_err(|_| format!("{text:?} is not a slice such as 172.20.56.16/28"))
    };
    text.split(',').map(slice).collect()
}

/// Compares with the slices of other nodes. Returns a warning if they are unknown.
///
/// # Errors
/// If a slice overlaps with another node's.
pub(super) fn check_overlaps(
    args: &Install,
    chosen: &NodeSlices,
    cluster: Option<&Cluster>,
) -> Result<Option<String>> {
    let node = node::name(args.node.as_deref())?;
    let mut others = cluster.map(|cluster| cluster.others.clone()).unwrap_or_default();
    if let Some(path) = &args.mapping {
        others.extend(mapping(path)?);
    }
    for (other, slices) in others.iter().filter(|(other, _)| *other != node) {
        for other_slice in slices {
            if let Some(own) =
                chosen.slices.iter().find(|own| own.contains(other_slice) || other_slice.contains(*own))
            {
                bail!(
                    "slice {own} of node {node}, from {}, overlaps {other_slice} of node {other}",
                    chosen.source
                );
            }
        }
    }
    Ok(cluster.and_then(|cluster| cluster.unknown_others.clone()))
}

/// The slices in the cluster's Nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    chosen: Option<NodeSlices>,
    others: Vec<(String, Vec<IpNet>)>,
    /// A warning that the other Nodes cannot be listed.
    unknown_others: Option<String>,
    runtime: Option<String>,
}

impl Cluster {
    /// Asks the API server, from within a pod. None elsewhere, and if no slice is needed from it.
    ///
    /// # Errors
    /// An API server that does not answer. Its slice would take precedence over the mapping file.
    pub(super) fn find(args: &Install) -> Result<Option<Cluster>> {
        let Some(api) = api_server(args)? else { return Ok(None) };
        let name = node::name(args.node.as_deref())?;
        let node = api.node(&name)?;
        let mut cluster = Cluster { chosen: slices_of(&name, &node)?, ..Cluster::default() };
        let runtime = node.pointer("/status/nodeInfo/containerRuntimeVersion").and_then(Value::as_str);
        cluster.runtime = runtime.map(str::to_owned);
        match api.nodes()? {
            Ok(nodes) => {
                for node in nodes {
                    let Some(name) = node["metadata"]["name"].as_str() else { continue };
                    // Another Node's wrong annotation is reported on that node.
                    let chosen = slices_of(name, &node).ok().flatten();
                    cluster.others.extend(chosen.map(|chosen| (name.to_owned(), chosen.slices)));
                }
            }
            Err(why) => {
                cluster.unknown_others =
                    Some(format!("cannot check whether another node has the same slice: {why}"));
            }
        }
        Ok(Some(cluster))
    }

    /// The node's runtime, as its kubelet reports it.
    pub(super) fn runtime(&self) -> Option<&str> {
        self.runtime.as_deref()
    }
}

/// The API server, if the Node may determine the slice.
fn api_server(args: &Install) -> Result<Option<Api>> {
    if !args.slice.is_empty() || (args.network.is_empty() && args.flags.name.is_none()) {
        return Ok(None);
    }
    Api::find()
}

/// The slices of this node's Node.
pub(super) fn node_slices(args: &Install) -> Result<Option<NodeSlices>> {
    let Some(api) = api_server(args)? else { return Ok(None) };
    let name = node::name(args.node.as_deref())?;
    slices_of(&name, &api.node(&name)?)
}

/// The slices of a Node: from its annotation, else from the podCIDRs.
fn slices_of(name: &str, node: &Value) -> Result<Option<NodeSlices>> {
    if let Some(text) = node["metadata"]["annotations"][ANNOTATION].as_str() {
        let slices =
            parse_slices(text).map_err(|why| anyhow!("annotation {ANNOTATION} of Node {name}: {why}"))?;
        let source = format!("annotation of Node {name}");
        return Ok(Some(NodeSlices { slices, source, is_by_caller: false }));
    }
    let spec = &node["spec"];
    let several = spec["podCIDRs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> = several.iter().filter_map(Value::as_str).collect();
    let texts = if texts.is_empty() { spec["podCIDR"].as_str().into_iter().collect() } else { texts };
    let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return Ok(None);
    }
    let slices =
        parse_slices(&texts.join(",")).map_err(|why| anyhow!("spec.podCIDRs of Node {name}: {why}"))?;
    Ok(Some(NodeSlices { slices, source: format!("spec.podCIDRs of Node {name}"), is_by_caller: false }))
}

fn shown(slices: &[IpNet]) -> String {
    slices.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_has_one_line_for_each_node() {
        let mapping =
            parse_mapping("# ours\nn1 10.0.0.16/28\n\nn2\t10.0.0.32/28,fd00:2::/64 # two\n").unwrap();
        assert_eq!(mapping[0], ("n1".into(), vec!["10.0.0.16/28".parse().unwrap()]));
        assert_eq!((mapping[1].0.as_str(), mapping[1].1.len()), ("n2", 2));
        for (wrong, named) in [
            ("n1\n", "1: \"n1\""),
            ("\nn1 x\n", "2: \"x\" is not a slice"),
            ("n1 10.0.0.0/28 10.0.0.16/28", "1: "),
            ("n1 10.0.0.0/28\nn1 10.0.0.16/28", "2: node n1 has two lines"),
        ] {
            assert!(parse_mapping(wrong).unwrap_err().starts_with(named), "{wrong}");
        }
    }
}
