//! Network lists: reads them from directories, and checks their vlan-bridge entries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use cni_conf::cni::env::Environment;
use cni_conf::ipam::IpamConfig;
use cni_conf::ipam_plugin::IpamPlugin;
use cni_conf::network::Network;
use cni_conf::request::Request;
use serde_json::{Map, Value};

use crate::files;

/// The plugin's type in network lists.
pub(crate) const PLUGIN_TYPE: &str = "vlan-bridge";

/// The file name extension of network lists. libcni's `ConfFiles` takes files with the other extensions as
/// the configuration of a single plugin.
const LIST_EXTENSION: &str = ".conflist";
const PLUGIN_EXTENSIONS: [&str; 2] = [".conf", ".json"];

/// Wraps a single plugin's configuration into a list (libcni's `ConfListFromConf`). Returns anything else
/// as it is.
pub(crate) fn wrap_single(content: Value) -> Value {
    if !is_single(&content) {
        return content;
    }
    let mut list = Map::new();
    for key in ["cniVersion", "name"] {
        list.extend(content.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    list.insert("plugins".into(), Value::Array(vec![content]));
    list.into()
}

/// Whether this is a single plugin's configuration.
pub(crate) fn is_single(content: &Value) -> bool {
    content["type"].is_string() && content.get("plugins").is_none()
}

/// Unwraps a list of one plugin into a single plugin's configuration.
pub(crate) fn unwrap_single(list: &Value) -> Option<Value> {
    let [plugin] = list["plugins"].as_array()?.as_slice() else { return None };
    let mut single = plugin.clone();
    for key in ["cniVersion", "name"] {
        single[key] = list[key].clone();
    }
    Some(single)
}

/// A vlan-bridge entry of a list, checked as the plugins check it.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    /// The network's name.
    pub(crate) name: String,
    /// The entry's keys.
    pub(crate) network: Network,
    /// Warnings about unusual values.
    pub(crate) warnings: Vec<String>,
}

/// Checks every vlan-bridge entry of a list, as libcni would pass it to the plugin.
///
/// # Errors
/// The error of an ADD.
pub(crate) fn check(list: &Value) -> Result<Vec<NetworkConfig>> {
    if !list["plugins"].is_array() {
        bail!(
            "plugins: missing: a network list needs plugins, and a single plugin's configuration needs type"
        );
    }
    entries(list).map(check_entry).collect()
}

/// The vlan-bridge entries of a list, as libcni passes them to the plugin: with the list's name and
/// version.
pub(crate) fn entries(list: &Value) -> impl Iterator<Item = Value> {
    entries_that(list, |plugin| plugin["type"] == PLUGIN_TYPE)
}

fn entries_that(list: &Value, is_one: fn(&Value) -> bool) -> impl Iterator<Item = Value> {
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    plugins.iter().filter(move |plugin| is_one(plugin)).map(|plugin| {
        let mut config = plugin.clone();
        for key in ["cniVersion", "name"] {
            config[key] = list[key].clone();
        }
        config
    })
}

/// The networks of a list whose addresses come from our IPAM plugin, with any main plugin. Each has its
/// `ipam` section, or what is wrong with it.
pub(crate) fn with_our_addresses(list: &Value) -> Vec<(String, Result<IpamConfig, String>)> {
    let entries = entries_that(list, |plugin| plugin["ipam"]["type"] == IpamPlugin::OURS);
    let configs = entries.filter_map(|entry| {
        let config = IpamConfig::parse(entry.as_object()?).map_err(|error| error.to_string());
        Some((list["name"].as_str()?.to_owned(), config))
    });
    configs.collect()
}

fn check_entry(config: Value) -> Result<NetworkConfig> {
    // The environment of an ADD. Its values do not matter here.
    let environment = Environment::parse(|name| {
        let value = match name {
            "CNI_COMMAND" => "ADD",
            "CNI_CONTAINERID" | "CNI_IFNAME" => "check",
            "CNI_NETNS" => "/run/netns/check",
            "CNI_PATH" => "/opt/cni/bin",
            _ => return None,
        };
        Some(value.into())
    });
    let request = Request::parse(environment?, config.to_string().into_bytes())?;
    request.log_settings()?;
    let (network, mut warnings) = Network::parse(&request)?;
    warnings.extend(network.addresses.iter().flat_map(|ipam| ipam.warnings.iter().cloned()));
    Ok(NetworkConfig { name: request.name, network, warnings })
}

/// A file in a CNI conf directory: a network list, or a single plugin's configuration.
#[derive(Clone, Debug)]
pub(crate) struct ListFile {
    /// Its file.
    pub(crate) path: PathBuf,
    /// The content as a list, or why it cannot be read.
    pub(crate) content: Result<Value, String>,
    /// The right file name, if runtimes misread the file by its extension.
    pub(crate) misnamed: Option<PathBuf>,
}

impl ListFile {
    /// The network's name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.content.as_ref().ok()?["name"].as_str()
    }

    /// The types of its plugins, in order.
    pub(crate) fn types(&self) -> Vec<&str> {
        self.entries().iter().filter_map(|plugin| plugin["type"].as_str()).collect()
    }

    /// The types of the plugins' IPAM plugins.
    pub(crate) fn ipam_types(&self) -> Vec<&str> {
        self.entries().iter().filter_map(|plugin| plugin["ipam"]["type"].as_str()).collect()
    }

    fn new(path: PathBuf, content: Result<Value, String>) -> ListFile {
        let is_named_list = path.to_string_lossy().ends_with(LIST_EXTENSION);
        let content_says_list = content.as_ref().ok().map(|content| match is_single(content) {
            true => Some(false),
            false => content["plugins"].is_array().then_some(true),
        });
        let misnamed = match content_says_list.flatten() {
            Some(is_list) if is_list != is_named_list => {
                Some(path.with_extension(if is_list { "conflist" } else { "conf" }))
            }
            _ => None,
        };
        ListFile { content: content.map(wrap_single), path, misnamed }
    }

    fn entries(&self) -> &[Value] {
        let list = self.content.as_ref().ok().and_then(|content| content["plugins"].as_array());
        list.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the list has a vlan-bridge entry.
    pub(crate) fn names_vlan_bridge(&self) -> bool {
        self.types().contains(&PLUGIN_TYPE)
    }
}

/// Whether a file's content is a list or a plugin's configuration with a vlan-bridge entry.
pub(crate) fn names_vlan_bridge(content: &[u8]) -> bool {
    let content = serde_json::from_slice(content).map_err(|error| error.to_string());
    ListFile::new(PathBuf::new(), content).names_vlan_bridge()
}

/// Every list of a directory, in the order of libcni: by file name.
///
/// # Errors
/// If the directory cannot be read. A missing directory is not an error.
pub(crate) fn in_folder(folder: &Path) -> Result<Vec<ListFile>> {
    let mut found = Vec::new();
    for name in files::names(folder)? {
        if !PLUGIN_EXTENSIONS.iter().chain([&LIST_EXTENSION]).any(|ending| name.ends_with(ending)) {
            continue;
        }
        let path = folder.join(name);
        let content = match files::read(&path) {
            Ok(Some(content)) => {
                serde_json::from_slice(&content).map_err(|error| format!("not JSON: {error}"))
            }
            Ok(None) => continue,
            Err(error) => Err(format!("{error:#}")),
        };
        found.push(ListFile::new(path, content));
    }
    Ok(found)
}

/// Reads a list, or a single plugin's configuration as a list of one. A missing file is an error.
pub(crate) fn read(path: &Path) -> Result<Value> {
    read_as_is(path).map(wrap_single)
}

/// Reads a list or a single plugin's configuration as it is.
pub(crate) fn read_as_is(path: &Path) -> Result<Value> {
    let content = files::read(path)?.ok_or_else(|| anyhow!("{}: file not found", path.display()))?;
    let value: Value =
        serde_json::from_slice(&content).with_context(|| format!("{}: not JSON", path.display()))?;
    match value.is_object() {
        true => Ok(value),
        false => bail!("{}: not a JSON object", path.display()),
    }
}
