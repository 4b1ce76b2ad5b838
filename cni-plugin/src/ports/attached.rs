//! The record of a finished attachment, with its configuration: `/run/vlan-bridge/ports/NODE/BRIDGE/VETH`.
//!
//! The record is written before the attachment's alias says that ADD is done, and removed before its port
//! leaves the bridge.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni_conf::cni::env::Environment;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::cni::result::AddResult;
use cni_conf::cni::version::Version;
use cni_conf::network::Network;
use cni_conf::request::{RESERVED_PREFIX, Request};
use kernel::Namespace;
use serde_json::{Map, Value, json};

use crate::lock::RecordLock;
use crate::ownership::Attachment;
use crate::record::{node_folder, put, remove_node_folder};

const KIND: &str = "ports";

/// A finished attachment.
pub(super) struct Attached {
    pub(super) request: Request,
    pub(super) mac: MacAddr,
    /// None in records of older versions.
    netns: Option<String>,
    /// The bridge's MAC, which the pod has in its neighbour entries for a gateway or its node.
    pub(super) bridge_mac: Option<MacAddr>,
    /// The addresses with their gateways, for a bridge that is a gateway.
    pub(super) result: AddResult,
}

/// Writes the record of a finished attachment.
pub fn write_record(
    request: &Request,
    network: &Network,
    mac: Option<MacAddr>,
    result: &AddResult,
    has_host_routes: bool,
) -> Result<(), CniError> {
    let Some(mac) = mac else { return Ok(()) };
    let veth = Attachment::of(request).host_interface();
    let mut config = request.config.clone();
    config.retain(|key, _| key != "prevResult" && !key.starts_with(RESERVED_PREFIX));
    let ips: Vec<Value> = result
        .ips
        .iter()
        .map(|ip| json!({"address": ip.address.to_string(), "gateway": ip.gateway.map(|gateway| gateway.to_string())}))
        .collect();
    let document = json!({
        "containerID": request.env.container_id, "ifname": request.env.ifname, "mac": mac.to_string(),
        "netns": request.env.netns,
        "bridgeMAC": result.interfaces.first().and_then(|bridge| bridge.mac.as_deref()), "config": config, "ips": ips,
        "hostRoutes": has_host_routes,
    });
    let folder = node_folder(KIND)?.join(&network.bridge);
    put(&folder, &veth, &document).map_err(|e| {
        CniError::new(code::IO_FAILURE, format!("write record {veth} in {}: {e}", folder.display()))
    })
}

/// The identity of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentId {
    /// Network name.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl From<Attached> for AttachmentId {
    fn from(attached: Attached) -> AttachmentId {
        let Request { name, env, .. } = attached.request;
        AttachmentId { network: name, container_id: env.container_id, ifname: env.ifname }
    }
}

/// The finished attachments whose pod's namespace exists, by veth name.
pub fn of_living_pods() -> Result<Vec<(String, AttachmentId)>, CniError> {
    let mut living = Vec::new();
    for (_, folder) in folders()? {
        for veth in names_in(&folder) {
            let Some(attached) = Attached::read(&folder, &veth) else { continue };
            if attached.has_pod() {
                living.push((veth, attached.into()));
            }
        }
    }
    Ok(living)
}

/// The finished attachment that had this veth, according to its record.
pub fn of_veth(veth: &str) -> Result<Option<AttachmentId>, CniError> {
    let mut records = folders()?.into_iter();
    Ok(records
        .find_map(|(_, folder)| folder.join(veth).exists().then(|| Attached::read(&folder, veth))?)
        .map(AttachmentId::from))
}

/// Whether an attachment was made without host routes although its network has them: the pod was also on a
/// network of another plugin.
pub fn has_no_host_routes(veth: &str) -> bool {
    let read = |folder: PathBuf| serde_json::from_slice::<Value>(&fs::read(folder.join(veth)).ok()?).ok();
    let documents = folders().unwrap_or_default().into_iter().filter_map(|(_, folder)| read(folder));
    documents.into_iter().any(|document| document["hostRoutes"] == false)
}

/// Removes the record of an attachment. Call this before its port leaves the bridge: without the record,
/// the port is not restored.
pub fn delete_record(veth: &str) -> Result<(), CniError> {
    let folders = folders()?;
    if folders.is_empty() {
        return Ok(());
    }
    let _lock = RecordLock::shared()?;
    // The folders stay, because an ADD may be about to write into one.
    folders.iter().try_for_each(|(_, folder)| remove(folder, veth))
}

pub(super) fn remove(folder: &Path, veth: &str) -> Result<(), CniError> {
    for name in [veth.to_owned(), format!(".{veth}")] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(CniError::new(
                    code::IO_FAILURE,
                    format!("remove record {}: {e}", path.display()),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes all records, when no pod is attached any more.
pub fn delete_all_records() -> Result<(), CniError> {
    remove_node_folder(KIND)
}

/// The bridges that have records, each with its folder.
pub(super) fn folders() -> Result<Vec<(String, PathBuf)>, CniError> {
    let folder = node_folder(KIND)?;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    Ok(entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect())
}

pub(super) fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

impl Attached {
    /// None if the file is not a valid record.
    pub(super) fn read(folder: &Path, veth: &str) -> Option<Attached> {
        let path = folder.join(veth);
        let read = fs::read(&path).map_err(|e| e.to_string()).and_then(|bytes| Attached::parse(&bytes));
        match read {
            Ok(attached) if Attachment::of(&attached.request).host_interface() == veth => Some(attached),
            Ok(_) => None,
            Err(why) => {
                log::warn!("record {} cannot be used: {why}", path.display());
                None
            }
        }
    }

    fn parse(bytes: &[u8]) -> Result<Attached, String> {
        let document: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let text = |key: &str| {
            document
                .get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("{key} is missing"))
        };
        let (container_id, ifname) = (text("containerID")?, text("ifname")?);
        let environment = Environment::parse(|name| match name {
            "CNI_COMMAND" => Some("DEL".into()),
            "CNI_CONTAINERID" => Some(OsString::from(&container_id)),
            "CNI_IFNAME" => Some(OsString::from(&ifname)),
            "CNI_PATH" => Some("/".into()),
            _ => None,
        });
        let config = document.get("config").ok_or("config is missing")?.to_string();
        let request = environment.and_then(|environment| Request::parse(environment, config.into_bytes()));
        let result = json!({"cniVersion": "1.0.0", "ips": document.get("ips").cloned().unwrap_or_default()});
        let result = AddResult::from_json(&result, Version::V1_0_0).map_err(|e| e.msg)?;
        let mac = text("mac")?.parse().map_err(|_| "mac is not a MAC".to_owned())?;
        let bridge_mac = text("bridgeMAC").ok().and_then(|mac| mac.parse().ok());
        Ok(Attached {
            request: request.map_err(|e| e.msg)?,
            mac,
            netns: text("netns").ok(),
            bridge_mac,
            result,
        })
    }

    /// Whether the pod's namespace exists. False if that is unknown.
    pub(super) fn has_pod(&self) -> bool {
        self.netns.as_deref().is_some_and(|netns| Namespace::open(netns).is_ok_and(|there| there.is_some()))
    }

    pub(super) fn network(&self) -> Result<Network, CniError> {
        Network::parse(&self.request).map(|(network, _)| network)
    }
}
