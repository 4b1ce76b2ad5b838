//! The record of a finished attachment, with its configuration: `/run/vlan-bridge/ports/NODE/BRIDGE/VETH`.
//!
//! The record is written before the attachment's alias says that ADD is done, and removed before its port
//! leaves the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::OnceLock;

use cni_conf::cni::args::PodName;
use cni_conf::cni::env::Environment;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::cni::result::AddResult;
use cni_conf::cni::version::Version;
use cni_conf::ipam::IpamConfig;
use cni_conf::network::Network;
use cni_conf::request::{RESERVED_PREFIX, Request};
use cni_conf::section::Section;
use kernel::Namespace;
use serde_json::{Value, json};

use crate::lock::RecordLock;
use crate::ownership::Attachment;
use crate::record::{PerDevice, Record, Records, remove_node_folder};

/// The record of a finished attachment.
#[derive(Clone)]
pub(super) struct PortRecord {
    pub(super) request: Request,
    pub(super) mac: MacAddr,
    /// None in records of older versions.
    netns: Option<String>,
    /// The bridge's MAC, which the pod has in its neighbour entries for a gateway or its node.
    bridge_mac: Option<MacAddr>,
    /// The addresses with their gateways, for a bridge that is a gateway.
    pub(super) result: AddResult,
    /// False for a pod that was also on a network of another plugin. True in records of older versions.
    has_host_routes: bool,
    /// The pod, if `CNI_ARGS` named it.
    pod: Option<PodName>,
    /// The checked configuration, on first use.
    network: OnceLock<Result<Network, CniError>>,
}

impl PerDevice for PortRecord {}

impl Record for PortRecord {
    const FOLDER: &'static str = "ports";

    fn attachment(&self) -> Attachment<'_> {
        Attachment::of(&self.request)
    }

    fn to_json(&self) -> Value {
        let mut config = self.request.config.clone();
        config.retain(|key, _| key != "prevResult" && !key.starts_with(RESERVED_PREFIX));
        let ips: Vec<Value> = self
            .result
            .ips
            .iter()
            .map(|ip| json!({"address": ip.address.to_string(), "gateway": ip.gateway.map(|gateway| gateway.to_string())}))
            .collect();
        json!({
            "containerID": self.request.env.container_id, "ifname": self.request.env.ifname,
            "mac": self.mac.to_string(), "netns": self.netns,
            "bridgeMAC": self.bridge_mac.map(|mac| mac.to_string()), "config": config, "ips": ips,
            "hostRoutes": self.has_host_routes, "pod": self.pod.as_ref().map(PodName::to_string),
            "podUID": self.pod.as_ref().and_then(|pod| pod.uid.clone()),
        })
    }

    fn from_section(keys: &Section<'_>) -> Result<PortRecord, CniError> {
        let text = |key: &str| keys.require(key, keys.str(key)?, "a string").map(OsString::from);
        let (container_id, ifname) = (text("containerID")?, text("ifname")?);
        let environment = Environment::parse(|name| match name {
            "CNI_COMMAND" => Some("DEL".into()),
            "CNI_CONTAINERID" => Some(container_id.clone()),
            "CNI_IFNAME" => Some(ifname.clone()),
            "CNI_PATH" => Some("/".into()),
            _ => None,
        })?;
        let config = keys.require("config", keys.value("config"), "an object")?.to_string();
        let result = json!({"cniVersion": "1.0.0", "ips": keys.value("ips").cloned().unwrap_or_default()});
        let uid = keys.str("podUID")?.map(str::to_owned);
        let mac = keys.require("mac", keys.str("mac")?, "a MAC")?;
        Ok(PortRecord {
            request: Request::parse(environment, config.into_bytes())?,
            mac: mac.parse().map_err(|e| keys.error("mac", e))?,
            netns: keys.str("netns")?.map(str::to_owned),
            bridge_mac: keys.str("bridgeMAC")?.and_then(|mac| mac.parse().ok()),
            result: AddResult::from_json(&result, Version::V1_0_0)?,
            has_host_routes: keys.opt_bool("hostRoutes")?.unwrap_or(true),
            pod: keys.str("pod")?.and_then(PodName::parse).map(|pod| PodName { uid, ..pod }),
            network: OnceLock::new(),
        })
    }
}

impl PortRecord {
    /// Whether the pod's namespace exists. False if that is unknown.
    pub(super) fn has_pod(&self) -> bool {
        self.netns.as_deref().is_some_and(|netns| Namespace::open(netns).is_ok_and(|there| there.is_some()))
    }

    /// The path of the pod's namespace.
    pub(super) fn netns(&self) -> Result<&str, CniError> {
        let unknown =
            || CniError::new(code::INVALID_NETNS, "an older version did not note the pod's namespace");
        self.netns.as_deref().ok_or_else(unknown)
    }

    pub(super) fn network(&self) -> Result<&Network, CniError> {
        let network = self.network.get_or_init(|| Network::parse_attached(&self.request));
        network.as_ref().map_err(CniError::clone)
    }
}

/// A pod's port, by its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedPort {
    /// The node end of the veth.
    pub veth: String,
    /// The pod's MAC.
    pub mac: MacAddr,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The VLAN of its untagged frames, if the bridge filters by VLAN.
    pub vlan: Option<u16>,
    /// The pod, if the runtime named it.
    pub pod: Option<PodName>,
    /// The MAC is pinned to the port.
    pub is_pinned: bool,
}

/// A bridge of some records, with the ports that belong to it.
pub type RecordedBridge = (String, Vec<RecordedPort>);

/// The bridges of all records.
pub fn recorded() -> Result<Vec<RecordedBridge>, CniError> {
    Ok(recorded_with_networks()?.0)
}

/// The bridges of all records, and the networks that have an uplink. Reads each record once.
pub fn recorded_with_networks() -> Result<(Vec<RecordedBridge>, Vec<RecordedNetwork>), CniError> {
    let (mut bridges, mut networks) = (Vec::new(), Vec::new());
    for (bridge, records) in by_bridge()? {
        let (mut ports, mut of_bridge) = (Vec::new(), Vec::new());
        for (veth, record) in records.all() {
            let network = record.network().ok();
            note_network(&mut of_bridge, &bridge, &record, network);
            ports.push(port(veth, &record, network));
        }
        bridges.push((bridge, ports));
        networks.append(&mut of_bridge);
    }
    Ok((bridges, networks))
}

fn port(veth: String, record: &PortRecord, network: Option<&Network>) -> RecordedPort {
    let vlans = network.and_then(|network| network.port_vlans.as_ref());
    RecordedPort {
        veth,
        mac: record.mac,
        addresses: record.result.ips.iter().map(|ip| ip.address.addr()).collect(),
        vlan: vlans.and_then(|vlans| vlans.access),
        pod: record.pod.clone(),
        is_pinned: network.is_some_and(Network::mac_is_pinned),
    }
}

/// A network with an uplink, by the records of its pods.
#[derive(Clone, Debug)]
pub struct RecordedNetwork {
    /// The network's name.
    pub name: String,
    /// The pods' bridge.
    pub bridge: String,
    /// The VLAN of the pods' untagged frames, if the bridge filters by VLAN.
    pub vlan: Option<u16>,
    /// The bridge's port that leads to the network.
    pub uplink: String,
    /// The addresses, if our IPAM assigns them and probes for them. None as well if the configuration would
    /// be refused by now.
    pub addresses: Option<IpamConfig>,
    /// The gateways of its pods.
    pub gateways: BTreeSet<IpAddr>,
    /// Its pods get addresses from a DHCP server, or it does not know how they get them.
    pub expects_dhcp: bool,
}

/// Adds the network of a record, if it has an uplink. One record shows each network of a bridge, but for its
/// gateways.
fn note_network(
    networks: &mut Vec<RecordedNetwork>,
    bridge: &str,
    record: &PortRecord,
    network: Option<&Network>,
) {
    let name = &record.request.name;
    let gateways = record.result.ips.iter().filter_map(|ip| ip.gateway);
    if let Some(known) = networks.iter_mut().find(|known| known.name == *name) {
        known.gateways.extend(gateways);
        return;
    }
    let Some(network) = network else { return };
    let Some(uplink) = &network.uplink else { return };
    let checked = Network::parse(&record.request).ok().and_then(|(network, _)| network.addresses);
    networks.push(RecordedNetwork {
        name: name.clone(),
        bridge: bridge.to_owned(),
        vlan: network.port_vlans.as_ref().and_then(|vlans| vlans.access),
        uplink: uplink.port_name().to_owned(),
        addresses: checked.filter(|addresses| addresses.detection.is_some()),
        gateways: gateways.collect(),
        expects_dhcp: network.ipam.as_ref().is_none_or(|plugin| !plugin.keeps_addresses()),
    });
}

/// The networks of all records whose addresses our IPAM assigns, by name, as one of their pods was
/// attached. Those whose configuration would be refused by now are left out.
pub fn recorded_addresses() -> Result<BTreeMap<String, IpamConfig>, CniError> {
    let mut networks = BTreeMap::new();
    for (_, record) in by_bridge()?.into_iter().flat_map(|(_, records)| records.all()) {
        if networks.contains_key(&record.request.name) {
            continue;
        }
        let addresses = Network::parse(&record.request).ok().and_then(|(network, _)| network.addresses);
        networks.extend(addresses.map(|addresses| (record.request.name.clone(), addresses)));
    }
    Ok(networks)
}

/// The bridges that have records, each with its records.
pub(super) fn by_bridge() -> Result<Vec<(String, Records<PortRecord>)>, CniError> {
    Records::by_device()
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
    let bridge_mac = result.interfaces.first().and_then(|bridge| bridge.mac.as_deref());
    Records::of_device(&network.bridge)?.write(&PortRecord {
        request: request.clone(),
        mac,
        netns: Some(request.env.netns.clone()),
        bridge_mac: bridge_mac.and_then(|mac| mac.parse().ok()),
        result: result.clone(),
        has_host_routes,
        pod: request.env.args.pod(),
        network: OnceLock::new(),
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

impl From<&PortRecord> for AttachmentId {
    fn from(record: &PortRecord) -> AttachmentId {
        let Request { name, env, .. } = &record.request;
        AttachmentId {
            network: name.clone(),
            container_id: env.container_id.clone(),
            ifname: env.ifname.clone(),
        }
    }
}

/// The finished attachments whose pod's namespace exists, by veth name.
pub fn of_living_pods() -> Result<Vec<(String, AttachmentId)>, CniError> {
    let all = by_bridge()?.into_iter().flat_map(|(_, records)| records.all());
    Ok(all
        .filter(|(_, record)| record.has_pod())
        .map(|(veth, record)| (veth, AttachmentId::from(&*record)))
        .collect())
}

/// The finished attachment that had this veth, according to its record.
pub fn of_veth(veth: &str) -> Result<Option<AttachmentId>, CniError> {
    Ok(by_bridge()?
        .into_iter()
        .find_map(|(_, records)| records.read(veth))
        .map(|record| AttachmentId::from(&*record)))
}

/// The configuration of the finished attachment that has this veth in a bridge.
pub fn network_of(bridge: &str, veth: &str) -> Result<Option<Network>, CniError> {
    Records::<PortRecord>::of_device(bridge)?.read(veth).map(|record| record.network().cloned()).transpose()
}

/// The MAC that a bridge had when one of its pods was attached.
pub(crate) fn mac_of(bridge: &str) -> Option<MacAddr> {
    Records::<PortRecord>::of_device(bridge).ok()?.any()?.bridge_mac
}

/// Whether an attachment was made without host routes although its network has them: the pod was also on a
/// network of another plugin.
pub fn has_no_host_routes(veth: &str) -> bool {
    let records = by_bridge().unwrap_or_default().into_iter();
    records.filter_map(|(_, records)| records.read(veth)).any(|record| !record.has_host_routes)
}

/// Removes the record of an attachment. Call this before its port leaves the bridge: without the record,
/// the port is not restored.
pub fn delete_record(veth: &str) -> Result<(), CniError> {
    let bridges = by_bridge()?;
    if bridges.is_empty() {
        return Ok(());
    }
    let _lock = RecordLock::shared()?;
    // The folders stay, because an ADD may be about to write into one.
    bridges.iter().try_for_each(|(_, records)| records.remove(veth))
}

/// Removes all records, when no pod is attached any more.
pub fn delete_all_records() -> Result<(), CniError> {
    remove_node_folder(PortRecord::FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let mut keys = json!({
            "containerID": "0a1b", "ifname": "eth0", "mac": "02:00:00:00:00:2a",
            "config": {"cniVersion": "1.0.0", "name": "local", "type": "vlan-bridge"},
            "ips": [{"address": "10.22.0.2/16", "gateway": null}],
        });
        let read = |keys: &Value| PortRecord::from_section(&Section::new(keys.as_object().unwrap(), ""));
        let old = read(&keys).unwrap();
        assert_eq!(old.attachment(), Attachment::new("local", "0a1b", "eth0"));
        assert_eq!(old.result.ips.len(), 1);
        assert!(old.has_host_routes && !old.has_pod() && old.bridge_mac.is_none());
        keys["bridgeMAC"] = "02:00:00:00:00:01".into();
        keys["netns"] = "/run/netns/p".into();
        keys["hostRoutes"] = false.into();
        keys["pod"] = "shop/web-0".into();
        keys["podUID"] = "0a1b".into();
        assert_eq!(read(&keys).unwrap().to_json(), keys);
    }

    #[test]
    fn only_keys_of_the_port_can_keep_it_from_being_restored() {
        let network = |vlan: u16, ipam: &str| {
            let ipam: Value = serde_json::from_str(ipam).unwrap();
            let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "vlan-bridge", "bridge": "br136",
                "uplink": {"master": "bond0", "vlan": vlan}, "dns": 7, "ipam": ipam});
            let keys = json!({"containerID": "pod", "ifname": "eth0", "mac": "02:00:00:00:00:2a",
                "config": config, "ips": []});
            let record = PortRecord::from_section(&Section::new(keys.as_object().unwrap(), "")).unwrap();
            record.network().cloned().map_err(|error| error.msg)
        };
        for ipam in [
            r#"{"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "gateway": "10.0.0.1"}"#,
            r#"{"type": "vlan-bridge-ipam", "subnet": 7}"#,
            r#"{"type": "vlan-bridge-ipam"}"#,
            r#"{"type": "a/b"}"#,
            r#"{"subnet": "172.20.56.0/24"}"#,
            "7",
        ] {
            let network = network(136, ipam).unwrap_or_else(|why| panic!("{ipam}: {why}"));
            assert_eq!(network.uplink.unwrap().port_name(), "bond0.136");
        }
        let refused = network(9999, "{}").unwrap_err();
        assert!(refused.contains("uplink.vlan"), "{refused}");
    }
}
