//! The guard in the node's packet filter: the elements of one attachment. [`ruleset`] is the base rule set
//! that all attachments share.
//!
//! `nft list table bridge vlan-bridge` shows it. An Ethernet frame from a pod's port is looked up by port,
//! MAC and address in a few sets, with an element per pod or address. So the cost of a frame does not grow
//! with the number of pods.

pub mod damage;
pub mod ruleset;

use std::net::{IpAddr, Ipv6Addr};

use cni_conf::cni::error::CniError;
use cni_conf::cni::mac::MacAddr;
use cni_conf::section::{Section, parse_ip};
use kernel::nft::{self, Element, Value, Verdict};
use serde_json::{Value as Json, json};

use ruleset::{ADDRESSES4, ADDRESSES6, LINK_LOCALS, MACS, OWN_VLANS, PORTS, entry};

/// What an attachment may send besides packets with its own MAC and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allow ARP and IP from its own addresses only. False allows any address.
    pub by_address: bool,
    /// Addresses that it may use in addition to its own.
    pub allowed: Vec<IpAddr>,
    /// It may use any link-local address.
    pub any_link_local: bool,
    /// On a port with tagged VLANs: the port's own VLAN, if it has one. None on a port without tagged
    /// VLANs.
    pub trunk: Option<Option<u16>>,
}

impl Limits {
    /// The JSON form for the attachment's record.
    pub fn to_json(&self) -> Json {
        json!({
            "byAddress": self.by_address,
            "allowed": self.allowed.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "anyLinkLocal": self.any_link_local,
            "trunk": self.trunk.is_some(),
            "vlan": self.trunk.flatten(),
        })
    }

    /// Reads what [`Limits::to_json`] wrote.
    pub fn from_section(keys: &Section<'_>) -> Result<Limits, CniError> {
        let vlan = keys.number("vlan", "a VLAN id", 1..=4094)?.map(|vid| vid as u16);
        let allowed = keys
            .strings("allowed")?
            .into_iter()
            .map(|text| parse_ip(&text).ok_or_else(|| keys.wrong("allowed", &text.into(), "addresses")));
        Ok(Limits {
            by_address: keys.bool("byAddress")?,
            allowed: allowed.collect::<Result<_, _>>()?,
            any_link_local: keys.bool("anyLinkLocal")?,
            trunk: keys.bool("trunk")?.then_some(vlan),
        })
    }
}

/// A pod's port and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// The veth's end on the node.
    pub veth: &'a str,
    /// The pod's MAC.
    pub mac: MacAddr,
    /// The pod's addresses that are known so far.
    pub addresses: &'a [IpAddr],
    /// The other limits.
    pub limits: &'a Limits,
    /// The elements' comment, which names the attachment.
    pub comment: &'a str,
}

/// The elements of an attachment. The first one, in [`PORTS`], exists whenever one of the others does.
pub fn elements(port: &Port<'_>) -> Vec<Element> {
    let Port { veth, mac, addresses, limits, comment } = port;
    let element = |set, key, value| Element { set, key, value, comment: (*comment).to_owned() };
    let name = nft::interface(veth);
    let lookup = Value::Verdict(Verdict::Goto(entry(limits.by_address, limits.trunk.is_some()).into()));
    let mut elements =
        vec![element(PORTS, name.clone(), Some(lookup)), element(MACS, nft::key(&[&name, &mac.0]), None)];
    if let Some(Some(vid)) = limits.trunk {
        elements.push(element(OWN_VLANS, nft::key(&[&name, &vid.to_be_bytes()]), None));
    }
    if limits.by_address && limits.any_link_local {
        elements.push(element(LINK_LOCALS, nft::key(&[&name, &mac.0]), None));
    }
    if limits.by_address {
        let own = addresses.iter().chain(&limits.allowed).copied();
        let mut known: Vec<IpAddr> = own.chain([IpAddr::V6(link_local(*mac))]).collect();
        known.sort();
        known.dedup();
        elements.extend(known.into_iter().map(|ip| {
            let set = if ip.is_ipv4() { ADDRESSES4 } else { ADDRESSES6 };
            element(set, nft::key(&[&name, &mac.0, &nft::address(ip)]), None)
        }));
    }
    elements
}

/// The link-local address that an interface makes of its MAC (RFC 4291 appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

/// Describes what an element allows.
pub fn describe_element(element: &Element) -> String {
    match element.set {
        PORTS => "the guard of the pod's port".to_owned(),
        MACS => "the pod's MAC".to_owned(),
        LINK_LOCALS => "the permission to use any link-local address".to_owned(),
        OWN_VLANS => "the VLAN of the pod's port".to_owned(),
        _ => {
            // port, MAC of eight bytes, address
            const BEFORE: usize = 24;
            let bytes = element.key.get(BEFORE..).unwrap_or_default();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            ip.map_or_else(|_| "an address".to_owned(), |ip| format!("the pod's address {ip}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(addresses: &[&str], limits: &Limits) -> Vec<(&'static str, Vec<u8>)> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let mac = "02:00:00:00:00:2a".parse().unwrap();
        let port = Port { veth: "veth1", mac, addresses: &addresses, limits, comment: "veth1 net eth0 id" };
        elements(&port).into_iter().map(|element| (element.set, element.key)).collect()
    }

    #[test]
    fn a_pod_has_an_element_for_port_mac_and_each_address() {
        let allowed = vec!["10.0.0.9".parse().unwrap()];
        let limits = Limits { by_address: true, allowed, any_link_local: false, trunk: None };
        let keys = keys(&["10.0.0.2"], &limits);
        let sets: Vec<&str> = keys.iter().map(|(set, _)| *set).collect();
        assert_eq!(sets, [PORTS, MACS, ADDRESSES4, ADDRESSES4, ADDRESSES6]);
        assert_eq!(keys[1].1[16..], [2, 0, 0, 0, 0, 0x2a, 0, 0]);
        assert_eq!(keys[2].1[16..], [2, 0, 0, 0, 0, 0x2a, 0, 0, 10, 0, 0, 2]);
        let link_local: Ipv6Addr = "fe80::ff:fe00:2a".parse().unwrap();
        assert_eq!(keys[4].1[24..], link_local.octets());
    }

    #[test]
    fn without_known_addresses_the_mac_alone_counts() {
        let limits =
            Limits { by_address: false, allowed: Vec::new(), any_link_local: false, trunk: Some(Some(136)) };
        let keys = keys(&["10.0.0.2"], &limits);
        let sets: Vec<&str> = keys.iter().map(|(set, _)| *set).collect();
        assert_eq!(sets, [PORTS, MACS, OWN_VLANS]);
        assert_eq!(keys[2].1[16..], [0, 136, 0, 0]);
    }

    #[test]
    fn the_base_ruleset_has_an_entry_for_each_kind_of_port() {
        let chains: Vec<String> = damage::uses().into_iter().map(|(name, ..)| name).collect();
        for by_address in [true, false] {
            for trunk in [true, false] {
                assert!(chains.contains(&entry(by_address, trunk).to_owned()));
            }
        }
    }
}
