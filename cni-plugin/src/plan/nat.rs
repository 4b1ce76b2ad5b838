//! NAT mode in the node's packet filter: the elements of one attachment. [`ruleset`] is the base rule set
//! that all attachments share.
//!
//! `nft list table inet vlan-bridge` shows it. Sets and maps have an element for each pod and port. So
//! neither the rules that a packet traverses nor the work to add a pod grow with the number of pods.

pub mod accept;
pub mod hooks;
pub mod localhost;
pub mod matches;
pub mod ruleset;
pub mod share;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_conf::cni::error::CniError;
use cni_conf::family::Family;
use cni_conf::ports::{PortMapping, Protocol};
use ipnet::IpNet;
use kernel::nft::{self, Change, Element, Expr, Field, LONGEST_COMMENT, Value, Verdict};

use crate::ownership::{self, Attachment};
use crate::record::NatRecord;
use ruleset::{ADDRESS_PORTS, HAIRPIN, MASQUERADE, MASQUERADED, PORTS, SOURCES, TABLE, of_family};

/// A chain that the pods of one network and subnet share. It is removed with the last of these pods: the
/// kernel keeps it while an element refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetChain {
    /// Its name.
    pub name: String,
    rules: Vec<Vec<Expr>>,
    comment: String,
}

impl SubnetChain {
    /// Makes the chain, or replaces its rules if it exists.
    pub fn make(&self) -> Vec<Change> {
        let mut changes = vec![
            Change::AddChain { table: TABLE, name: self.name.clone(), hook: None },
            Change::FlushChain { table: TABLE, name: self.name.clone() },
        ];
        changes.extend(self.rules.iter().map(|exprs| Change::AddRule {
            table: TABLE,
            chain: self.name.clone(),
            exprs: exprs.clone(),
            comment: self.comment.clone(),
        }));
        changes
    }

    /// How many rules it has.
    pub fn rules(&self) -> u32 {
        self.rules.len() as u32
    }
}

/// The name prefixes of subnet chains, and the number of their rules.
pub const SUBNET_CHAINS: [(&str, u32); 2] = [(MASQUERADE_CHAIN, 3), (HAIRPIN_CHAIN, 2)];
const MASQUERADE_CHAIN: &str = "masquerade-";
const HAIRPIN_CHAIN: &str = "hairpin-";

/// The chains that an attachment's elements refer to.
pub fn chains(record: &NatRecord) -> Vec<SubnetChain> {
    let chain = |prefix: &str, net: &IpNet, rules| SubnetChain {
        name: chain_name(prefix, record, net),
        rules,
        comment: cut(format!("network {}", record.pod.network)),
    };
    let mut chains = Vec::new();
    for net in &record.pod.addresses {
        if record.masquerade {
            chains.push(chain(MASQUERADE_CHAIN, net, masquerade_rules(net)));
        }
        if has_hairpin(record) {
            chains.push(chain(HAIRPIN_CHAIN, net, hairpin_rules(net)));
        }
    }
    chains
}

fn chain_name(prefix: &str, record: &NatRecord, net: &IpNet) -> String {
    let subnet = net.trunc().to_string();
    format!("{prefix}{:016x}", ownership::hash(&[record.pod.network.as_str(), subnet.as_str()]))
}

/// Packets that leave the subnet get the node's address. Multicast keeps its source, as with the reference
/// plugin.
fn masquerade_rules(net: &IpNet) -> Vec<Vec<Expr>> {
    let multicast = match net {
        IpNet::V4(_) => IpNet::new_assert(IpAddr::from([224, 0, 0, 0]), 4),
        IpNet::V6(_) => IpNet::new_assert(IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
    };
    let stays = |subnet: &IpNet| {
        let mut rule = matches::within(Field::Destination, subnet);
        rule.push(Expr::Verdict(Verdict::Return));
        rule
    };
    vec![stays(net), stays(&multicast), vec![masquerade()]]
}

fn masquerade() -> Expr {
    Expr::Verdict(Verdict::Goto(MASQUERADED.into()))
}

/// Masquerades packets to host ports if the pod's answer would not come back through the node: those from
/// the pod's own subnet, from the pod itself, and from the node.
fn hairpin_rules(net: &IpNet) -> Vec<Vec<Expr>> {
    let mut from_the_node = matches::local(Field::Source);
    from_the_node.push(masquerade());
    let mut from_the_subnet = matches::within(Field::Source, net);
    from_the_subnet.push(masquerade());
    vec![from_the_node, from_the_subnet]
}

/// The elements of an attachment.
pub fn elements(record: &NatRecord) -> Vec<Element> {
    let comment = element_comment(&record.pod.attachment());
    let mut elements = Vec::new();
    for net in &record.pod.addresses {
        let ip = net.addr();
        let mut leads_to = |set: [&'static str; 2], prefix| {
            elements.push(Element {
                set: of_family(set, ip),
                key: nft::address(ip),
                value: Some(Value::Verdict(Verdict::Goto(chain_name(prefix, record, net)))),
                comment: comment.clone(),
            });
        };
        if record.masquerade {
            leads_to(MASQUERADE, MASQUERADE_CHAIN);
        }
        if has_hairpin(record) {
            leads_to(HAIRPIN, HAIRPIN_CHAIN);
        }
        if record.masquerade && !record.direct {
            let set = of_family(ruleset::CLOSED, ip);
            elements.push(Element { set, key: nft::address(ip), value: None, comment: comment.clone() });
        }
    }
    for net in &record.pod.addresses {
        let ip = net.addr();
        elements.extend(source(record, ip).map(|source| Element {
            set: of_family(SOURCES, ip),
            key: nft::address(ip),
            value: Some(Value::Bytes(nft::key(&[&nft::address(source)]))),
            comment: comment.clone(),
        }));
    }
    for mapping in &record.ports {
        let targets = targets(record, mapping);
        elements.extend(targets.into_iter().map(|target| port_element(mapping, target, &comment)));
        let localhost = record.localhost.filter(|_| localhost_target(record, mapping).is_some());
        elements.extend(localhost.map(|node| localhost_element(mapping, node, &comment)));
    }
    elements
}

/// With an uplink, [`SOURCES`] covers all cases that need a hairpin, and more.
fn has_hairpin(record: &NatRecord) -> bool {
    !record.ports.is_empty() && record.sources.is_empty()
}

fn source(record: &NatRecord, pod: IpAddr) -> Option<IpAddr> {
    record.sources.iter().copied().find(|source| Family::of(*source) == Family::of(pod))
}

/// The pod's addresses to which a host port is forwarded: the first of each family of the host port.
pub fn targets(record: &NatRecord, mapping: &PortMapping) -> Vec<IpAddr> {
    let wanted = |ip: &IpAddr| mapping.host_ip.is_none_or(|host| Family::of(host) == Family::of(*ip));
    let of = |family| record.pod.addresses.iter().map(IpNet::addr).find(|ip| Family::of(*ip) == family);
    Family::BOTH.into_iter().filter_map(of).filter(wanted).collect()
}

fn port_element(mapping: &PortMapping, target: IpAddr, comment: &str) -> Element {
    let (address, key) = port_key(mapping);
    let set = if address { ADDRESS_PORTS } else { PORTS };
    let value = nft::key(&[&nft::address(target), &mapping.container_port.to_be_bytes()]);
    Element {
        set: of_family(set, target),
        key,
        value: Some(Value::Bytes(value)),
        comment: comment.to_owned(),
    }
}

/// Whether a host port is bound to a single address, and its key.
fn port_key(mapping: &PortMapping) -> (bool, Vec<u8>) {
    let (protocol, port) = ([mapping.protocol.number()], mapping.host_port.to_be_bytes());
    match mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(host) => (true, nft::key(&[&nft::address(host), &protocol, &port])),
        None => (false, nft::key(&[&protocol, &port])),
    }
}

fn localhost_element(mapping: &PortMapping, node: Ipv4Addr, comment: &str) -> Element {
    let (address, key) = port_key(mapping);
    Element {
        set: if address { localhost::ADDRESS_PORTS } else { localhost::PORTS },
        key,
        value: Some(Value::Bytes(nft::key(&[&node.octets()]))),
        comment: comment.to_owned(),
    }
}

/// The pod's address to which a host port at 127.0.0.0/8 is forwarded. None if the port is bound to another
/// address.
fn localhost_target(record: &NatRecord, mapping: &PortMapping) -> Option<IpAddr> {
    let is_local = mapping.host_ip.is_none_or(|host| host.is_unspecified() || host.is_loopback());
    targets(record, mapping).into_iter().find(|target| is_local && target.is_ipv4())
}

/// The pod's address to which host ports at 127.0.0.0/8 are forwarded. None without such ports.
pub fn target_of_localhost(record: &NatRecord) -> Option<IpAddr> {
    record.ports.iter().find_map(|mapping| localhost_target(record, mapping))
}

/// The elements that the attachments on one device share.
pub fn device_elements(record: &NatRecord) -> Vec<Element> {
    // With br_netfilter, the input interface of packets is the bridge itself. They are not seen again with
    // the node's VLAN interface.
    let both = std::iter::once(&record.pod.device).chain(&record.pod.bridge);
    let mut elements: Vec<Element> = both.map(|name| bridged_element(name)).collect();
    if is_routed(record) {
        let set = if record.sources.is_empty() { ruleset::DEVICES } else { ruleset::UPLINKS };
        elements.push(routed_element(set, &record.pod.device));
    }
    elements
}

/// The element that accepts packets that the node forwards for the pods on a device.
pub fn routed_element(set: &'static str, device: &str) -> Element {
    Element { set, key: nft::interface(device), value: None, comment: String::new() }
}

/// The element that accepts packets whose input and output interface is the same bridge.
pub fn bridged_element(bridge: &str) -> Element {
    let key = [nft::interface(bridge), nft::interface(bridge)].concat();
    Element { set: ruleset::BRIDGES, key, value: None, comment: String::new() }
}

/// Refuses host ports at `::1`: the kernel accepts no packet from `::1` on a device, so no answer would
/// come back.
pub fn check_ports(ports: &[PortMapping]) -> Result<(), CniError> {
    let loopback = |mapping: &&PortMapping| mapping.host_ip == Some(Ipv6Addr::LOCALHOST.into());
    match ports.iter().find(loopback) {
        Some(mapping) => Err(CniError::config(format!(
            "runtimeConfig.portMappings: hostIP of host port {mapping}: Linux accepts no answer from a pod for ::1; \
             use 127.0.0.1, another address of the node, or no hostIP"
        ))),
        None => Ok(()),
    }
}

/// Whether the node forwards packets of the pod. If only the bridge forwards them, the packet filter sees
/// them through br_netfilter.
pub fn is_routed(record: &NatRecord) -> bool {
    record.gateway || record.masquerade || !record.ports.is_empty() || !record.sources.is_empty()
}

/// The comment of an attachment's elements: the veth, by which the elements are found, and the attachment.
pub fn element_comment(attachment: &Attachment<'_>) -> String {
    let Attachment { network, container_id, ifname, .. } = attachment;
    cut(format!("{} {network} {ifname} {container_id}", attachment.host_interface()))
}

fn cut(mut comment: String) -> String {
    while comment.len() > LONGEST_COMMENT {
        comment.pop();
    }
    comment
}

/// The name of the veth in a comment.
pub fn veth_of(comment: &str) -> Option<&str> {
    comment.split(' ').next().filter(|veth| !veth.is_empty())
}

/// Whether a comment belongs to an attachment to this network. Of a comment that was cut, only the part
/// that is left is compared.
pub fn is_of_network(comment: &str, network: &str) -> bool {
    let mut words = comment.splitn(3, ' ').skip(1);
    match (words.next(), words.next()) {
        (Some(name), Some(_)) => name == network,
        (Some(name), None) => comment.len() == LONGEST_COMMENT && network.starts_with(name),
        _ => false,
    }
}

/// Describes what an element is for: `host port 8080/tcp`.
pub fn what(element: &Element) -> String {
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(octets) => IpAddr::from(octets).to_string(),
        Err(_) => {
            <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::from(octets).to_string()).unwrap_or_default()
        }
    };
    if !share::is_port(element) {
        return format!("address {} of the pod", ip(&element.key));
    }
    // protocol, port: of four bytes each, at the end.
    let (address, port) = element.key.split_at(element.key.len().saturating_sub(8));
    let number = port.get(4..6).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]])).unwrap_or_default();
    let protocol = port.first().and_then(|number| Protocol::of_number(*number)).map_or("?", Protocol::name);
    match address.is_empty() {
        true => format!("host port {number}/{protocol}"),
        false => format!("host port {number}/{protocol} of {}", ip(address)),
    }
}

/// Describes the attachment that a comment names.
pub fn describe(comment: &str) -> String {
    let mut words = comment.splitn(4, ' ').skip(1);
    let mut word = || words.next().unwrap_or("unknown");
    let (network, ifname, container) = (word(), word(), word());
    format!("container {container}, interface {ifname}, network {network}")
}

#[cfg(test)]
mod tests;
