//! Host routes: which of the node's addresses pods reach on-link, and from which address the node sends to
//! them.
//!
//! Without host routes, a pod's packet to its node would arrive on the pods' VLAN and the answer would
//! leave by the node's VLAN. Strict reverse path filtering (RFC 3704 section 2.2) drops such packets. So
//! both directions use the bridge: the pod has on-link routes to the node's addresses behind the bridge's
//! MAC, and the node has on-link routes to the pod's addresses.

use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use cni_conf::family::Family;
use cni_conf::host_access::{HostAccess, HostAddress};
use cni_conf::network::Network;
use kernel::link::{Address, Kind, Link};

use super::difference::repairable;
use super::{Step, Sysctl};

/// The node's addresses and interfaces, as observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Its addresses, of the families that the pod has.
    pub addresses: Vec<Address>,
    /// The interfaces of those addresses that pass [`may_count`].
    pub links: Vec<Link>,
    /// Indexes of the interfaces that the node would use for the pod without a host route: towards the
    /// default route.
    pub default_interfaces: Vec<u32>,
}

/// The sysctl for the node's own interface on the pods' network, which is the bridge or its side of the
/// pods' VLAN.
///
/// By default, the kernel answers ARP requests for any of its addresses on any interface. Only reverse path
/// filtering prevents that in the pods' VLAN. With `arp_ignore` 1 the interface answers only for its own
/// addresses, so an address that an operator gave to the bridge still works. (`IFF_NOARP` would break that
/// address.) The node needs no ARP requests either: the pods' neighbour entries are permanent.
pub fn of_device(network: &Network, name: &str, device: Option<&Link>) -> Option<Step> {
    network.host_access.as_ref()?;
    let answers = |device: &Link| device.arp_ignore == Some(0);
    device.is_none_or(answers).then(|| Step::Sysctl(Sysctl::arp_ignore(name)))
}

/// False if the address can never be chosen, whatever its interface is.
pub fn may_count(address: &Address) -> bool {
    // An IPv6 link-local address is valid on one link only. Pods can use an IPv4 link-local address
    // (NodeLocal DNSCache: 169.254.20.10).
    let is_of_one_link = address.link_local && address.net.addr().is_ipv6();
    !address.net.addr().is_loopback() && !is_of_one_link && !address.tentative && !address.duplicate
}

/// The addresses of the node that pods reach on-link, in the kernel's order. `device` is the node's own
/// interface on the pods' network.
pub fn addresses(wanted: &HostAccess, device: &Link, seen: &NodeAddresses) -> Vec<IpAddr> {
    let mut chosen = Vec::new();
    for address in seen.addresses.iter().filter(|address| may_count(address)) {
        let Some(link) = seen.links.iter().find(|link| link.index == address.interface && link.up) else {
            continue;
        };
        let ip = address.net.addr();
        let named = wanted.addresses.iter().any(|entry| match entry {
            HostAddress::Within(net) => net.contains(&ip),
            HostAddress::Of(name) => *name == link.name,
        });
        let primary = || is_primary(address) && leads_elsewhere(link, device, seen);
        if (named || wanted.addresses.is_empty() && primary()) && !chosen.contains(&ip) {
            chosen.push(ip);
        }
    }
    chosen
}

/// Entries of `hostAddresses` that match no chosen address: mistyped, or the address does not exist yet.
pub fn unmatched<'a>(
    wanted: &'a HostAccess,
    chosen: &[IpAddr],
    seen: &NodeAddresses,
) -> Vec<&'a HostAddress> {
    let carries = |name: &str| {
        let link = seen.links.iter().find(|link| link.name == *name);
        link.is_some_and(|link| seen.addresses.iter().any(|address| address.interface == link.index))
    };
    let is_unmatched = |entry: &&HostAddress| match entry {
        HostAddress::Within(net) => !chosen.iter().any(|ip| net.contains(ip)),
        HostAddress::Of(name) => !carries(name),
    };
    wanted.addresses.iter().filter(is_unmatched).collect()
}

/// A permanent address of the node. Virtual addresses, which move between nodes, are secondary or have no
/// subnet. Temporary addresses expire.
fn is_primary(address: &Address) -> bool {
    let net = &address.net;
    !address.link_local
        && !address.secondary
        && !address.deprecated
        && net.prefix_len() < net.max_prefix_len()
}

/// Whether the interface leads to other machines. A dummy does not. The bridge of another pod network on
/// this node (docker0, cni0) has the same address on every node. A bridge counts as one of these unless it
/// is the pods' own bridge or leads to the default route.
fn leads_elsewhere(link: &Link, device: &Link, seen: &NodeAddresses) -> bool {
    match &link.kind {
        Kind::Other(kind) => kind != "dummy",
        Kind::Bridge(_) => link.index == device.index || seen.default_interfaces.contains(&link.index),
        _ => true,
    }
}

/// The node's source address for a pod: the one that the kernel would choose, if the pod reaches it
/// on-link, else the first on-link address of the pod's family. None if there is none; then the node needs
/// no route either.
pub fn source(pod: IpAddr, chosen: &[IpAddr], default_source: Option<IpAddr>) -> Option<IpAddr> {
    let same_family = |ip: &IpAddr| Family::of(*ip) == Family::of(pod);
    default_source
        .filter(|ip| chosen.contains(ip))
        .or_else(|| chosen.iter().copied().find(|ip| same_family(ip)))
}

/// The host routes between a pod and its node, as CHECK observes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedRoutes {
    /// For each of the pod's addresses.
    pub to_pod: Vec<ToPod>,
    /// For each of the node's.
    pub to_node: Vec<ToNode>,
}

/// The node's route to an address of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToPod {
    /// The pod's address.
    pub address: IpAddr,
    /// Interface index of the host route. None without a host route.
    pub interface: Option<u32>,
    /// The MAC of the permanent neighbour entry.
    pub mac: Option<MacAddr>,
}

/// The pod's route to an address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToNode {
    /// The node's address.
    pub address: IpAddr,
    /// The MAC of the permanent neighbour entry.
    pub mac: Option<MacAddr>,
}

/// Compares the observed routes with what ADD installed. `is_routed` says whether the pod has a route to
/// the address on the link. Returns the addresses that the node got after ADD.
pub fn compare(
    observed: &ObservedRoutes,
    device: &Link,
    container: &Link,
    is_routed: impl Fn(IpAddr) -> bool,
) -> Result<Vec<IpAddr>, String> {
    let shown = |mac: Option<MacAddr>| mac.map_or("none".to_owned(), |mac| mac.to_string());
    for ToPod { address, interface, mac } in &observed.to_pod {
        if *interface != Some(device.index) {
            return Err(repairable(format_args!("the node's route to {address} by {} is gone", device.name)));
        }
        if *mac != container.mac {
            return Err(format!(
                "the node's neighbour entry for {address} on {} has MAC {}, the pod has {}",
                device.name,
                shown(*mac),
                shown(container.mac)
            ));
        }
    }
    let mut later = Vec::new();
    for ToNode { address, mac } in &observed.to_node {
        match (is_routed(*address), mac) {
            (false, None) => later.push(*address),
            (false, _) => {
                return Err(format!("the route to the node's address {address} is gone from the container"));
            }
            (true, mac) if *mac != device.mac => {
                return Err(format!(
                    "the container's neighbour entry for the node's address {address} has MAC {}, {} has {}",
                    shown(*mac),
                    device.name,
                    shown(device.mac)
                ));
            }
            _ => {}
        }
    }
    Ok(later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{address, link, network};
    use kernel::link::Bridge;

    fn kind(name: &str) -> Kind {
        Kind::Other(name.to_owned())
    }

    fn bridge() -> Kind {
        Kind::Bridge(Bridge::default())
    }

    fn vlan(id: u16) -> Kind {
        Kind::Vlan { id, protocol: 0x8100 }
    }

    /// A node with one of everything.
    fn seen() -> NodeAddresses {
        NodeAddresses {
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "10.51.0.11/24"),
                Address { secondary: true, ..address(2, "10.51.0.12/24") },
                address(2, "10.51.0.100/32"),
                address(3, "10.52.0.11/24"),
                address(4, "10.99.0.1/24"),
                address(5, "172.17.0.1/16"),
                address(6, "192.168.7.1/24"),
                address(7, "10.53.0.11/24"),
                address(2, "fd51::11/64"),
                Address { secondary: true, ..address(2, "fd51::7/64") },
                Address { deprecated: true, ..address(2, "fd51::8/64") },
                Address { tentative: true, ..address(2, "fd51::9/64") },
                Address { link_local: true, ..address(2, "fe80::1/64") },
            ],
            links: vec![
                link(1, "lo", kind("")),
                link(2, "bond0.51", vlan(51)),
                link(3, "bond0.52", vlan(52)),
                link(4, "kube-ipvs0", kind("dummy")),
                link(5, "docker0", bridge()),
                link(6, "br136", bridge()),
                Link { up: false, ..link(7, "bond0.53", vlan(53)) },
            ],
            default_interfaces: vec![2],
        }
    }

    fn chosen(wanted: HostAccess, seen: &NodeAddresses) -> Vec<String> {
        addresses(&wanted, &link(6, "br136", bridge()), seen).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn primary_addresses_of_interfaces_that_are_up_and_lead_elsewhere() {
        let primary = ["10.51.0.11", "10.52.0.11", "192.168.7.1", "fd51::11"];
        assert_eq!(chosen(HostAccess::default(), &seen()), primary);
        let behind_docker0 = NodeAddresses { default_interfaces: vec![5], ..seen() };
        assert!(chosen(HostAccess::default(), &behind_docker0).contains(&"172.17.0.1".to_owned()));
    }

    #[test]
    fn an_operator_may_name_others() {
        let wanted = HostAccess {
            addresses: vec![
                HostAddress::Within("10.51.0.100/32".parse().unwrap()),
                HostAddress::Of("docker0".into()),
                HostAddress::Of("bond0.99".into()),
                HostAddress::Within("10.54.0.0/16".parse().unwrap()),
            ],
            ..HostAccess::default()
        };
        let device = link(6, "br136", bridge());
        let chosen = addresses(&wanted, &device, &seen());
        let expected: [IpAddr; 2] = ["10.51.0.100".parse().unwrap(), "172.17.0.1".parse().unwrap()];
        assert_eq!(chosen, expected);
        let missed: Vec<&HostAddress> = wanted.addresses.iter().skip(2).collect();
        assert_eq!(unmatched(&wanted, &chosen, &seen()), missed);
    }

    #[test]
    fn the_node_answers_from_what_the_pod_has_on_the_link() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let chosen = [ip("10.52.0.11"), ip("10.51.0.11"), ip("fd51::11")];
        let pod = ip("172.20.56.16");
        assert_eq!(source(pod, &chosen, Some(ip("10.51.0.11"))), Some(ip("10.51.0.11")));
        assert_eq!(source(pod, &chosen, Some(ip("172.17.0.1"))), Some(ip("10.52.0.11")));
        assert_eq!(source(pod, &chosen, None), Some(ip("10.52.0.11")));
        assert_eq!(source(ip("fd00::16"), &chosen[..2], None), None);
    }

    #[test]
    fn a_device_is_told_once_what_it_answers_for() {
        let network = network(
            r#""bridge": "br136", "uplink": {"master": "bond0", "vlan": 136}, "ipam": {"type": "x"}"#,
        );
        let with = |arp_ignore| Link { arp_ignore, ..link(6, "br136", bridge()) };
        let step = Some(Step::Sysctl(Sysctl::arp_ignore("br136")));
        assert_eq!(of_device(&network, "br136", None), step);
        assert_eq!(of_device(&network, "br136", Some(&with(Some(0)))), step);
        for done in [Some(1), Some(8), None] {
            assert_eq!(of_device(&network, "br136", Some(&with(done))), None);
        }
        let off = Network { host_access: None, ..network };
        assert_eq!(of_device(&off, "br136", None), None);
    }
}
