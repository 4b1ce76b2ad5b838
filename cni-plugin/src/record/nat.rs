//! The record of an attachment with NAT, host ports or services, or that the node forwards for as gateway.

use std::net::{IpAddr, Ipv4Addr};

use cni_conf::cni::error::CniError;
use cni_conf::ports::PortMapping;
use cni_conf::section::{Section, parse_cidr, parse_ip};
use ipnet::IpNet;
use serde_json::Value;

use super::Record;
use super::pod::{PodInterface, parse_list, texts};
use crate::ownership::Attachment;

/// What an attachment has in the table `inet vlan-bridge`. A missing key means that it does not have the
/// feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatRecord {
    /// The pod's interface.
    pub pod: PodInterface,
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
}

impl Record for NatRecord {
    const FOLDER: &'static str = "attachments";

    fn attachment(&self) -> Attachment<'_> {
        self.pod.attachment()
    }

    fn to_json(&self) -> Value {
        let mut keys = self.pod.to_json();
        keys["masquerade"] = self.masquerade.into();
        keys["direct"] = self.direct.into();
        keys["gateway"] = self.gateway.into();
        keys["ports"] = self.ports.iter().map(PortMapping::to_json).collect();
        keys["sources"] = texts(&self.sources);
        keys["localhost"] = self.localhost.map(|ip| ip.to_string()).into();
        keys["services"] = texts(&self.services);
        keys["followers"] = texts(&self.followers);
        keys
    }

    fn from_section(keys: &Section<'_>) -> Result<NatRecord, CniError> {
        Ok(NatRecord {
            pod: PodInterface::from_section(keys)?,
            masquerade: keys.bool("masquerade")?,
            direct: keys.bool("direct")?,
            gateway: keys.bool("gateway")?,
            ports: PortMapping::parse_list(keys, "ports")?,
            sources: parse_list(keys, "sources", parse_ip, "addresses")?,
            localhost: keys.ip("localhost")?.and_then(as_ipv4),
            services: parse_list(keys, "services", parse_cidr, "networks")?,
            followers: keys.strings("followers")?,
        })
    }
}

/// An address that is IPv4.
pub fn as_ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}
