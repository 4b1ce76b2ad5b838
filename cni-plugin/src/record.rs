//! Records in `/run` of what an attachment has outside its veth. Rules in the node's packet filter do not
//! show their configuration, and a firewall restart removes them.
//!
//! One file per attachment, in a folder for each network namespace that is a node:
//! `/run/vlan-bridge/attachments/NODE/VETH`, `/run/vlan-bridge/guards/NODE/VETH` for the guard, and
//! `/run/vlan-bridge/ways/NODE/DEVICE/VETH` for host routes. Like the rules, the records are lost at
//! reboot. An attachment without such features has none.

mod prune;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::ports::PortMapping;
use cni_conf::section::{Section, parse_cidr, parse_ip};
use ipnet::IpNet;
use kernel::{Conn, link, netns};
use serde_json::{Value, json};

use crate::lock::FOLDER;
use crate::ownership::{Attachment, Progress};
use crate::plan::guard::Limits;
pub use prune::prune;

/// One attachment's record. Unknown keys are ignored. A missing key means that the attachment does not have
/// the feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Network name.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS` of the ADD, for readers.
    pub netns: String,
    /// The node's device in the pod's subnet: the bridge, or its side of the pods' VLAN.
    pub device: String,
    /// The bridge, if `device` is its side of a VLAN.
    pub bridge: Option<String>,
    /// The pod's MAC.
    pub mac: Option<MacAddr>,
    /// The pod's addresses with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
    /// Packets that leave the pod's subnet are masqueraded.
    pub masquerade: bool,
    /// Packets to a masqueraded pod's own address are accepted (`allowDirectRouting`).
    pub direct: bool,
    /// The node is the pod's router (`isGateway`), and forwards its packets even without NAT.
    pub gateway: bool,
    /// The pod's host ports.
    pub ports: Vec<PortMapping>,
    /// On a network with an uplink: the node's address of each family that replaces the source of packets
    /// whose answers would bypass the node. Empty in NAT mode, where the node is the pod's router.
    pub sources: Vec<IpAddr>,
    /// The node's source address for host ports at 127.0.0.1. None without such ports, and in records of
    /// older versions.
    pub localhost: Option<Ipv4Addr>,
    /// With host ports: the networks of services, where host ports are not published.
    pub services: Vec<IpNet>,
    /// The veths of the same container's attachments that get the host ports when this one is removed, in
    /// this order. Some may be gone.
    pub followers: Vec<String>,
    /// What the pod may send. None if it is not restricted.
    pub guard: Option<Limits>,
}

impl Record {
    /// The attachment of the record.
    pub fn attachment(&self) -> Attachment<'_> {
        Attachment::new(&self.network, &self.container_id, &self.ifname)
    }

    fn to_json(&self) -> Value {
        json!({
            "network": self.network,
            "containerID": self.container_id,
            "ifname": self.ifname,
            "netns": self.netns,
            "device": self.device,
            "bridge": self.bridge,
            "mac": self.mac.map(|mac| mac.to_string()),
            "addresses": self.addresses.iter().map(IpNet::to_string).collect::<Vec<_>>(),
            "masquerade": self.masquerade,
            "direct": self.direct,
            "gateway": self.gateway,
            "ports": self.ports.iter().map(PortMapping::to_json).collect::<Vec<_>>(),
            "sources": self.sources.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "localhost": self.localhost.map(|ip| ip.to_string()),
            "services": self.services.iter().map(IpNet::to_string).collect::<Vec<_>>(),
            "followers": self.followers,
            "guard": self.guard.as_ref().map(Limits::to_json),
        })
    }

    fn from_json(value: &Value) -> Result<Record, CniError> {
        let map = value.as_object().ok_or_else(|| CniError::config("not a JSON object"))?;
        let section = Section::new(map, "");
        let text = |key: &str| section.require(key, section.str(key)?, "a string").map(str::to_owned);
        let mac = match section.str("mac")? {
            Some(mac) => Some(MacAddr::parse_unicast(mac).map_err(|e| section.error("mac", e))?),
            None => None,
        };
        let address = |text: &String| {
            parse_cidr(text).ok_or_else(|| section.wrong("addresses", &text.as_str().into(), "addresses"))
        };
        let service = |text: &String| {
            parse_cidr(text).ok_or_else(|| section.wrong("services", &text.as_str().into(), "networks"))
        };
        let source = |text: &String| {
            parse_ip(text).ok_or_else(|| section.wrong("sources", &text.as_str().into(), "addresses"))
        };
        Ok(Record {
            network: text("network")?,
            container_id: text("containerID")?,
            ifname: text("ifname")?,
            netns: text("netns")?,
            device: text("device")?,
            bridge: section.str("bridge")?.map(str::to_owned),
            mac,
            addresses: section.strings("addresses")?.iter().map(address).collect::<Result<_, _>>()?,
            masquerade: section.bool("masquerade")?,
            direct: section.bool("direct")?,
            gateway: section.bool("gateway")?,
            ports: PortMapping::parse_list(&section, "ports")?,
            sources: section.strings("sources")?.iter().map(source).collect::<Result<_, _>>()?,
            localhost: section.ip("localhost")?.and_then(as_ipv4),
            services: section.strings("services")?.iter().map(service).collect::<Result<_, _>>()?,
            followers: section.strings("followers")?,
            guard: section.section("guard")?.map(|keys| Limits::from_section(&keys)).transpose()?,
        })
    }
}

/// The folder of this node's records of one kind: `/run/vlan-bridge/KIND/NODE`.
pub(crate) fn node_folder(kind: &str) -> Result<PathBuf, CniError> {
    // A process runs on one node and reads its records many times.
    static NODE: OnceLock<String> = OnceLock::new();
    let node = match NODE.get() {
        Some(node) => node,
        None => {
            let node = netns::identity()?;
            NODE.get_or_init(|| node)
        }
    };
    Ok(PathBuf::from(format!("{FOLDER}/{kind}/{node}")))
}

/// Removes all of this node's records of a kind, when no pod is attached any more.
pub(crate) fn remove_node_folder(kind: &str) -> Result<(), CniError> {
    let folder = node_folder(kind)?;
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(CniError::new(code::IO_FAILURE, format!("remove {}: {e}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// An address that is IPv4.
pub fn as_ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Writes a document into a folder, which is made if needed. The file is renamed into place, so it is
/// complete or missing. Names that begin with a dot are drafts.
pub(crate) fn put(folder: &Path, name: &str, document: &Value) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = folder.join(format!(".{name}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(document.to_string().as_bytes())?;
    fs::rename(&draft, folder.join(name))
}

/// The records of one kind of this node.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// The records of the calling thread's namespace.
    pub fn of_this_node() -> Result<Records, CniError> {
        Records::below("attachments")
    }

    /// The records of its guarded pods. They are separate because the guard has a table of its own, and
    /// each table is removed with the last record of its kind.
    pub fn of_guards() -> Result<Records, CniError> {
        Records::below("guards")
    }

    /// The records of pods with host routes on this device of the node.
    pub fn of_host_routes_by(device: &str) -> Result<Records, CniError> {
        let Records { folder } = Records::below("ways")?;
        Ok(Records { folder: folder.join(device) })
    }

    /// The records of host routes of each device that has some.
    pub fn of_host_routes() -> Result<Vec<(String, Records)>, CniError> {
        let all = Records::below("ways")?;
        Ok(all
            .entries()
            .into_iter()
            .map(|name| (name.clone(), Records { folder: all.folder.join(name) }))
            .collect())
    }

    /// Removes the folder of all host routes' records if it is empty.
    pub fn remove_host_routes_folder_if_empty() -> Result<bool, CniError> {
        Records::below("ways").map(|all| all.end())
    }

    fn below(kind: &str) -> Result<Records, CniError> {
        Ok(Records { folder: node_folder(kind)? })
    }

    /// Writes the record of an attachment. Replaces an existing one.
    pub fn write(&self, record: &Record) -> Result<(), CniError> {
        let name = record.attachment().host_interface();
        put(&self.folder, &name, &record.to_json()).map_err(|e| self.failed("write", &name, &e))
    }

    /// The record of the attachment with this veth. None if there is none; one that cannot be read counts as
    /// none and is logged.
    pub fn read(&self, veth: &str) -> Option<Record> {
        let read = match fs::read(self.folder.join(veth)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| e.to_string())
                .and_then(|value| Record::from_json(&value).map_err(|e| e.msg)),
        };
        match read {
            // The file name alone proves nothing: the record may be another attachment's.
            Ok(record) if record.attachment().host_interface() == veth => Some(record),
            Ok(_) => self.unreadable(veth, "it is another attachment's"),
            Err(why) => self.unreadable(veth, &why),
        }
    }

    fn unreadable(&self, veth: &str, why: &str) -> Option<Record> {
        log::warn!("record {} cannot be used: {why}", self.folder.join(veth).display());
        None
    }

    /// Removes the record of the attachment with this veth, and the draft that a killed ADD left.
    pub fn remove(&self, veth: &str) -> Result<(), CniError> {
        self.discard(veth)?;
        self.discard(&format!(".{veth}"))
    }

    fn discard(&self, name: &str) -> Result<(), CniError> {
        match fs::remove_file(self.folder.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed("remove", name, &e)),
            _ => Ok(()),
        }
    }

    /// Removes the drafts that killed ADDs left. The caller holds the exclusive lock.
    pub fn remove_drafts(&self) -> Result<(), CniError> {
        let entries = self.entries();
        entries.iter().filter(|name| name.starts_with('.')).try_for_each(|draft| self.discard(draft))
    }

    /// Every readable record, by veth name.
    pub fn all(&self) -> Vec<(String, Record)> {
        let names = self.entries().into_iter().filter(|name| !name.starts_with('.'));
        names.filter_map(|name| self.read(&name).map(|record| (name, record))).collect()
    }

    /// The names of all veths that have a record, readable or not, or a draft.
    pub fn veths(&self) -> Vec<String> {
        self.entries().iter().map(|name| name.trim_start_matches('.').to_owned()).collect()
    }

    /// The records of attachments whose veth exists, finished ones first, without `but`. Other records are
    /// removed. The caller holds the exclusive lock.
    pub async fn live(&self, node: &Conn, but: Option<&str>) -> Result<Vec<Record>, CniError> {
        let (mut finished, mut under_way) = (Vec::new(), Vec::new());
        for (veth, record) in self.all().into_iter().filter(|(veth, _)| Some(veth.as_str()) != but) {
            let link = link::by_name(node, &veth).await?;
            match link.map_or(Progress::Foreign, |link| record.attachment().progress(&link)) {
                Progress::Ready => finished.push(record),
                Progress::Adding => under_way.push(record),
                Progress::Foreign => self.remove(&veth)?,
            }
        }
        finished.append(&mut under_way);
        Ok(finished)
    }

    /// Any readable record, without reading the others.
    pub fn any(&self) -> Option<Record> {
        let entries = fs::read_dir(&self.folder).ok()?.flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find_map(|name| if name.starts_with('.') { None } else { self.read(&name) })
    }

    /// Whether there is a record with this veth's name, readable or not.
    pub fn has(&self, veth: &str) -> bool {
        self.folder.join(veth).symlink_metadata().is_ok()
    }

    /// Whether there are no records and no drafts.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_none()) || !self.folder.exists()
    }

    /// Whether the folder does not exist: the node has had no records of this kind, or all were removed.
    pub fn are_absent(&self) -> bool {
        !self.folder.exists()
    }

    fn entries(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Makes the folder.
    pub fn begin(&self) -> Result<(), CniError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|e| CniError::new(code::IO_FAILURE, format!("create {}: {e}", self.folder.display())))
    }

    /// Removes the folder if it is empty. True if it is gone.
    pub fn end(&self) -> bool {
        fs::remove_dir(&self.folder).is_ok() || !self.folder.exists()
    }

    fn failed(&self, what: &str, name: &str, error: &std::io::Error) -> CniError {
        let path = self.folder.join(name);
        CniError::new(code::IO_FAILURE, format!("{what} record {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests;
