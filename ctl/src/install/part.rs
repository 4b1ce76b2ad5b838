//! Where a node's slice stands in a list.

use std::net::IpAddr;

use anyhow::{Result, bail};
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::list::Template;
use super::slice::Chosen;
use crate::args::Install;
use crate::lists::{OUR_PLUGIN, Ours};

/// The objects in which a slice may stand: those with a subnet, in every entry of ours whose addresses are
/// ours to give.
fn ranges(list: &mut Value) -> Vec<&mut Map<String, Value>> {
    let mut ranges = Vec::new();
    let plugins = list["plugins"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    for plugin in plugins.iter_mut().filter(|plugin| plugin["type"] == OUR_PLUGIN) {
        let Some(ipam) = plugin["ipam"].as_object_mut() else { continue };
        if ipam.get("type").is_none_or(|kind| kind != cni_conf::network::OUR_IPAM) {
            continue;
        }
        if ipam.contains_key("subnet") {
            ranges.push(ipam);
        } else if let Some(sets) = ipam.get_mut("ranges").and_then(Value::as_array_mut) {
            let sets = sets.iter_mut().filter_map(Value::as_array_mut);
            ranges.extend(sets.flatten().filter_map(Value::as_object_mut));
        }
    }
    ranges
}

/// The keys that say already which part of its subnet a range is.
const PARTS: [&str; 3] = ["slice", "rangeStart", "rangeEnd"];

/// Whether a list has an uplink, and a range that every node would give out whole.
pub(super) fn wants_slice(list: &Value) -> bool {
    has_uplink(list) && ranges(&mut list.clone()).iter().any(|range| is_open(range))
}

/// Whether other nodes are on the network as well.
fn has_uplink(list: &Value) -> bool {
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    plugins.iter().any(|plugin| plugin["type"] == OUR_PLUGIN && plugin["uplink"].is_object())
}

/// Whether a range does not say yet which part of its subnet it is.
fn is_open(range: &Map<String, Value>) -> bool {
    !PARTS.iter().any(|part| range.contains_key(*part))
}

/// The subnet of a range. What is wrong with it is said when the list is checked.
fn subnet(range: &Map<String, Value>) -> Option<IpNet> {
    range.get("subnet")?.as_str()?.parse().ok()
}

/// A slice, or a mapping, that there is no place for in any list.
///
/// # Errors
/// It would be ignored, and the caller would not know.
pub(super) fn check_use(call: &Install, templates: &[Template]) -> Result<()> {
    let given = match (call.slice.first(), &call.mapping) {
        (Some(slice), _) => format!("--slice {slice}"),
        (None, Some(path)) => format!("--mapping {}", path.display()),
        (None, None) => return Ok(()),
    };
    let Some(first) = templates.first() else {
        bail!("there is no list to put {given} into: name one with --network, or describe one with --name")
    };
    let mut lists: Vec<Value> = templates.iter().map(|template| template.content.clone()).collect();
    let subnets: Vec<Option<IpNet>> = lists.iter_mut().flat_map(ranges).map(|range| subnet(range)).collect();
    // Without an entry of ours there is more to say than this, and it is said later.
    let has_ours = lists.iter().any(|list| crate::lists::entries(list).next().is_some());
    if has_ours && subnets.is_empty() {
        bail!("{}: no range of vlan-bridge-ipam is in it to put {given} into", first.from);
    }
    let fits = |slice: &IpNet| subnets.iter().flatten().any(|subnet| subnet.contains(slice));
    if subnets.iter().all(Option::is_some)
        && !subnets.is_empty()
        && let Some(lost) = call.slice.first().filter(|_| !call.slice.iter().any(fits))
    {
        bail!("{}: slice {lost}, from --slice, is not within subnet {}", first.from, shown(&subnets));
    }
    Ok(())
}

fn shown(subnets: &[Option<IpNet>]) -> String {
    let subnets: Vec<String> = subnets.iter().flatten().map(IpNet::to_string).collect();
    subnets.join(" or ")
}

/// What a range has that says which part of its subnet it is, and whether that is within the slice: the same,
/// if it is a slice.
fn own_part(range: &Map<String, Value>, subnet: IpNet, slice: IpNet) -> (String, bool) {
    let place = if range.contains_key("type") { "ipam." } else { "ipam.ranges: " };
    let text = |key: &str| range.get(key).and_then(Value::as_str);
    if let Some(own) = text("slice") {
        return (format!("{place}slice {own}"), own.parse() == Ok(slice));
    }
    let end = |key: &str, default: IpAddr| text(key).map_or(Some(default), |text| text.parse().ok());
    let ends = [end("rangeStart", subnet.network()), end("rangeEnd", subnet.broadcast())];
    let named = PARTS.iter().filter_map(|key| Some(format!("{key} {}", text(key)?)));
    let is_within = ends.iter().all(|end| end.is_some_and(|end| slice.contains(&end)));
    (format!("{place}{}", named.collect::<Vec<_>>().join(", ")), is_within)
}

/// Puts each slice into the range whose subnet it is a part of, and leaves in `chosen` those that have found
/// one: a node of two families, or of several networks, has slices that are not this list's. Returns a word
/// on each of these.
///
/// # Errors
/// A range that gets none although there is one of its family: it is outside of the range's subnet. A range
/// that is another part of its subnet already than the caller says; what the Node says instead is only told
/// of.
pub(super) fn set_slices(list: &mut Value, from: &str, chosen: &mut Chosen) -> Result<Vec<String>> {
    let (is_shared, is_wanted) = (has_uplink(list), wants_slice(list));
    let all = ranges(list).into_iter().filter_map(|range| Some((subnet(range)?, range)));
    let (mut open, fixed): (Vec<_>, Vec<_>) = all.partition(|(_, range)| is_open(range));
    if !is_shared && !chosen.is_by_caller {
        open.clear();
    }
    let (mut used, mut unused, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for slice in std::mem::take(&mut chosen.slices) {
        if let Some(at) = open.iter().position(|(subnet, _)| subnet.contains(&slice)) {
            let (_, range) = open.remove(at);
            range.insert("slice".into(), slice.to_string().into());
            used.push(slice);
            continue;
        }
        let near = fixed.iter().filter(|(subnet, _)| subnet.contains(&slice));
        let own: Vec<(String, bool)> = near.map(|(subnet, range)| own_part(range, *subnet, slice)).collect();
        match own.first() {
            None => unused.push(slice),
            Some(_) if own.iter().any(|(_, agrees)| *agrees) => used.push(slice),
            Some((own, _)) => {
                let what = format!("{from}: {own} is in the list, and {} says {slice}", chosen.source);
                if chosen.is_by_caller {
                    bail!("{what}: take it out of the list");
                }
                words.push(format!("{what}: what is in the list stays"));
            }
        }
    }
    chosen.slices = used;
    for (subnet, _) in open.iter().filter(|_| is_shared) {
        if let Some(slice) = unused.iter().find(|slice| slice.addr().is_ipv4() == subnet.addr().is_ipv4()) {
            bail!("slice {slice}, from {}, is not within subnet {subnet}", chosen.source);
        }
    }
    // The Node may have slices for networks that are no business of ours.
    if is_wanted || chosen.is_by_caller {
        let lost = unused.iter();
        words.extend(
            lost.map(|slice| format!("slice {slice}, from {}, is of no subnet of the list", chosen.source)),
        );
    }
    Ok(words)
}

/// On a network that other nodes are on too, no node may give out a whole subnet.
pub(super) fn check_shared(ours: &Ours) -> Result<()> {
    let (Some(_), Some(ipam)) = (&ours.network.uplink, &ours.ipam) else { return Ok(()) };
    for range in ipam.ranges.iter().flat_map(|set| &set.0) {
        let whole = range.slice.is_none() && range.to_string() == range.subnet.to_string();
        if whole {
            bail!(
                "network {}: no slice of {} for this node: every node would give out all of it; give --slice {}, annotate the Node with {}, or name a file with --mapping",
                ours.name,
                range.subnet,
                range.subnet,
                super::slice::ANNOTATION
            );
        }
    }
    Ok(())
}
