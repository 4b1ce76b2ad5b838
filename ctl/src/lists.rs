//! Network lists: which ones a folder has, and what our entries in them ask for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use cni_conf::cni::env::Environment;
use cni_conf::ipam::IpamConfig;
use cni_conf::network::{Network, OUR_IPAM};
use cni_conf::request::Request;
use serde_json::{Map, Value};

use crate::files;

/// The plugin that is ours.
pub(crate) const OUR_PLUGIN: &str = "vlan-bridge";

/// What runtimes take for a network list, by the end of its name (libcni's `ConfFiles`).
const ENDINGS: [&str; 3] = [".conf", ".conflist", ".json"];

/// A network of ours: an entry of a list, checked as the plugins check it.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    /// The network's name.
    pub(crate) name: String,
    /// The entry's keys.
    pub(crate) network: Network,
    /// Its `ipam` section; none where another IPAM plugin, or none, gives addresses.
    pub(crate) ipam: Option<IpamConfig>,
    /// What is odd and not wrong.
    pub(crate) warnings: Vec<String>,
}

/// Checks every entry of ours in a list, as libcni would hand it to the plugin.
///
/// # Errors
/// What an ADD would say.
pub(crate) fn check(list: &Value) -> Result<Vec<Ours>> {
    if !list["plugins"].is_array() {
        bail!("plugins: missing: must be a list of plugins: this is no network list");
    }
    entries(list).map(check_entry).collect()
}

/// Our entries of a list, as libcni hands them to the plugin: with the list's name and version.
pub(crate) fn entries(list: &Value) -> impl Iterator<Item = Value> {
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    plugins.iter().filter(|plugin| plugin["type"] == OUR_PLUGIN).map(|plugin| {
        let mut config = plugin.clone();
        for key in ["cniVersion", "name"] {
            config[key] = list[key].clone();
        }
        config
    })
}

fn check_entry(config: Value) -> Result<Ours> {
    // What a runtime says of an ADD; nothing of it is looked at here.
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
    let ipam = match network.ipam.as_deref() {
        Some(OUR_IPAM) => Some(IpamConfig::parse(&request.config)?),
        _ => None,
    };
    if let Some(ipam) = &ipam {
        network.check_addresses(ipam)?;
        ipam.check_version(request.version)?;
        warnings.extend(ipam.warnings.iter().cloned());
    }
    Ok(Ours { name: request.name, network, ipam, warnings })
}

/// A network list, or a single plugin's configuration, in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Its content; the reason where it is none.
    pub(crate) content: Result<Value, String>,
}

impl Found {
    /// The network's name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.content.as_ref().ok()?["name"].as_str()
    }

    /// The types of its plugins, in order.
    pub(crate) fn types(&self) -> Vec<&str> {
        self.entries().iter().filter_map(|plugin| plugin["type"].as_str()).collect()
    }

    /// The types of the IPAM plugins that they call.
    pub(crate) fn ipam_types(&self) -> Vec<&str> {
        self.entries().iter().filter_map(|plugin| plugin["ipam"]["type"].as_str()).collect()
    }

    fn entries(&self) -> &[Value] {
        let Ok(content) = &self.content else { return &[] };
        content["plugins"].as_array().map_or(std::slice::from_ref(content), Vec::as_slice)
    }

    /// Whether an entry of it is ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.types().contains(&OUR_PLUGIN)
    }
}

/// Whether a file's content is a network list, or a plugin's configuration, with an entry of ours.
pub(crate) fn is_ours(content: &[u8]) -> bool {
    let content = serde_json::from_slice(content).map_err(|error| error.to_string());
    Found { path: PathBuf::new(), content }.is_ours()
}

/// Every list of a folder, in the order in which runtimes go through them: by name.
///
/// # Errors
/// When the folder cannot be read; there being none is no error.
pub(crate) fn in_folder(folder: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in files::names(folder)? {
        if !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
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
        found.push(Found { path, content });
    }
    Ok(found)
}

/// Reads one list that must be there.
pub(crate) fn read(path: &Path) -> Result<Map<String, Value>> {
    let content = files::read(path)?.ok_or_else(|| anyhow!("{}: there is no such file", path.display()))?;
    let value: Value =
        serde_json::from_slice(&content).with_context(|| format!("{}: not JSON", path.display()))?;
    match value {
        Value::Object(map) => Ok(map),
        _ => bail!("{}: not a JSON object", path.display()),
    }
}
