//! The network list of this node: made from a template, with a version that the runtimes accept.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use cni_conf::cni::version::Version;
use serde_json::{Value, json};

use super::binaries::Binary;
use crate::args::{Install, NetworkFlags};
use crate::lists::{self, PLUGIN_TYPE};
use crate::runtimes::{self, Runtime};

/// A list that is the same on every node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    /// Its source, for messages.
    pub(super) from: String,
    /// Its file name in the conf directory.
    pub(super) file: String,
    /// The list.
    pub(super) content: Value,
    /// Whether it is a single plugin's configuration, and stays one. Runtimes read it as a list of one
    /// plugin.
    pub(super) is_single: bool,
}

/// The templates of a call: files, or the network that flags describe; none to install the plugins only.
pub(super) fn templates(args: &Install) -> Result<Vec<Template>> {
    let mut templates = Vec::new();
    for path in &args.network {
        let (from, content) = (path.display().to_string(), lists::read_as_is(path)?);
        let own_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_single = lists::is_single(&content) && own_name.ends_with(".conf");
        let keeps_name = own_name.ends_with(".conflist") || is_single;
        let file = if keeps_name { own_name } else { file_of(&content, &from)? };
        templates.push(Template { from, file, content: lists::wrap_single(content), is_single });
    }
    if let Some(name) = &args.flags.name {
        let content = from_flags(name, &args.flags)?;
        let from = format!("network {name}");
        templates.push(Template { file: file_of(&content, &from)?, from, content, is_single: false });
    }
    Ok(templates)
}

fn file_of(list: &Value, from: &str) -> Result<String> {
    let name = list["name"].as_str().filter(|name| !name.contains('/'));
    let name = name.ok_or_else(|| anyhow!("{from}: name: missing: must be the network's name"))?;
    Ok(format!("10-{name}.conflist"))
}

fn from_flags(name: &str, flags: &NetworkFlags) -> Result<Value> {
    let subnet = flags.subnet.ok_or_else(|| anyhow!("--subnet is missing: the pods' subnet"))?;
    let default_route = if subnet.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let mut ipam =
        json!({"type": "vlan-bridge-ipam", "subnet": subnet.to_string(), "routes": [{"dst": default_route}]});
    if let Some(gateway) = flags.gateway {
        ipam["gateway"] = gateway.to_string().into();
    }
    if !flags.exclude.is_empty() {
        ipam["exclude"] = flags.exclude.clone().into();
    }
    let bridge = flags.bridge.clone().or(flags.vlan.map(|vlan| format!("br{vlan}")));
    let mut plugin =
        json!({"type": PLUGIN_TYPE, "bridge": bridge.as_deref().unwrap_or("cni0"), "ipam": ipam});
    match &flags.master {
        Some(master) => {
            plugin["uplink"] = json!({"master": master});
            if let Some(vlan) = flags.vlan {
                plugin["uplink"]["vlan"] = vlan.into();
            }
        }
        None => {
            plugin["isDefaultGateway"] = true.into();
            plugin["ipMasq"] = true.into();
            plugin["capabilities"] = json!({"portMappings": true});
        }
    }
    Ok(json!({"name": name, "plugins": [plugin]}))
}

/// Lowers the list's version to what the runtimes accept, or sets `asked`. Returns a warning about what the
/// list loses.
pub(super) fn set_version(list: &mut Value, asked: Option<Version>, runtimes: &[Runtime]) -> Option<String> {
    let accepted = runtimes::common_cni(runtimes);
    let own = match list["cniVersion"].as_str().map(Version::parse) {
        // Checking the list reports it.
        Some(Err(_)) if asked.is_none() => return None,
        Some(Ok(own)) => Some(own),
        _ => None,
    };
    let version = asked.unwrap_or_else(|| own.map_or(accepted, |own| own.min(accepted)));
    list["cniVersion"] = version.as_str().into();
    let own = own.filter(|own| *own >= Version::V1_1_0 && version < Version::V1_1_0 && asked.is_none())?;
    let why = match runtimes::list_readers(runtimes).next().is_none() {
        true => "no runtime was found, and older ones accept no newer version",
        false => "a runtime of this node accepts no newer version",
    };
    let (version, own) = (version.as_str(), own.as_str());
    Some(format!("cniVersion: {version} instead of {own}: {why}; GC and STATUS are not called"))
}

/// Sets `disableGC` if several runtimes share a network: each would release the other's pods. Returns a
/// warning about it.
pub(super) fn set_gc(
    list: &mut Value,
    is_single: bool,
    runtimes: &[Runtime],
    conf_dirs: &[PathBuf],
) -> Option<String> {
    let sharing: Vec<&str> = runtimes::list_readers(runtimes)
        .filter(|runtime| conf_dirs.contains(&runtime.conf_dir))
        .map(|runtime| runtime.name)
        .collect();
    if sharing.len() < 2 || list["disableGC"].is_boolean() {
        return None;
    }
    let why = format!(
        "{} share this network, and a GC by one would remove the pods of the other",
        sharing.join(" and ")
    );
    if is_single {
        return Some(format!("disableGC: cannot be set in a single plugin's file: {why}: use a .conflist"));
    }
    list["disableGC"] = true.into();
    Some(format!("disableGC: true: {why}"))
}

/// Warnings about plugins of the list that are not installed and not about to be.
pub(super) fn missing_plugins(list: &Value, bin_dirs: &[PathBuf], coming: &[Binary]) -> Vec<String> {
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    let types = plugins.iter().flat_map(|plugin| [&plugin["type"], &plugin["ipam"]["type"]]);
    let mut missing: Vec<String> = types
        .filter_map(Value::as_str)
        .filter(|name| {
            let comes = coming.iter().any(|binary| binary.target.file_name().is_some_and(|own| own == *name));
            !comes && !bin_dirs.iter().any(|dir| dir.join(name).exists())
        })
        .map(|name| {
            let dirs: Vec<String> = bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
            format!("the list names the plugin {name}, which is not in {}", dirs.join(", "))
        })
        .collect();
    missing.dedup();
    missing
}

/// Warnings about other lists in the conf directory that a runtime would use instead of this one, or that
/// have the same network name.
pub(super) fn conflicts(dir: &Path, path: &Path, list: &Value) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let others = lists::in_folder(dir).context("cannot read other network lists")?;
    for other in others.iter().filter(|other| other.path != path) {
        let shown = other.path.display();
        if other.name().is_some_and(|name| list["name"] == name) {
            warnings.push(format!("{shown} also describes the network {}: remove it", list["name"]));
        } else if other.path.file_name() < path.file_name() {
            warnings.push(format!(
                "{shown} sorts before {}: containerd and CRI-O use only the first list",
                path.display()
            ));
        }
    }
    Ok(warnings)
}
