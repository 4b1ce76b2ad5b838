//! What records of all kinds say about the pod's interface.

use cni_conf::cni::error::CniError;
use cni_conf::cni::mac::MacAddr;
use cni_conf::section::{Section, parse_cidr};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::ownership::Attachment;

/// A pod's interface: which attachment it is, and where it is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
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
}

impl PodInterface {
    /// The attachment.
    pub fn attachment(&self) -> Attachment<'_> {
        Attachment::new(&self.network, &self.container_id, &self.ifname)
    }

    /// A record's keys of the interface. The record adds its own.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "network": self.network,
            "containerID": self.container_id,
            "ifname": self.ifname,
            "netns": self.netns,
            "device": self.device,
            "bridge": self.bridge,
            "mac": self.mac.map(|mac| mac.to_string()),
            "addresses": texts(&self.addresses),
        })
    }

    pub(super) fn from_section(keys: &Section<'_>) -> Result<PodInterface, CniError> {
        let text = |key: &str| keys.require(key, keys.str(key)?, "a string").map(str::to_owned);
        let mac = match keys.str("mac")? {
            Some(mac) => Some(MacAddr::parse_unicast(mac).map_err(|e| keys.error("mac", e))?),
            None => None,
        };
        Ok(PodInterface {
            network: text("network")?,
            container_id: text("containerID")?,
            ifname: text("ifname")?,
            netns: text("netns")?,
            device: text("device")?,
            bridge: keys.str("bridge")?.map(str::to_owned),
            mac,
            addresses: parse_list(keys, "addresses", parse_cidr, "addresses")?,
        })
    }
}

/// The items of a list as strings.
pub(super) fn texts<T: ToString>(items: &[T]) -> Value {
    items.iter().map(T::to_string).collect()
}

/// Reads a list that [`texts`] wrote. Empty when absent.
pub(super) fn parse_list<T>(
    keys: &Section<'_>,
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
    right: &str,
) -> Result<Vec<T>, CniError> {
    let item = |text: &String| parse(text).ok_or_else(|| keys.wrong(key, &text.as_str().into(), right));
    keys.strings(key)?.iter().map(item).collect()
}
