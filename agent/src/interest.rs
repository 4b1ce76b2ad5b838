//! Which announcements may mean that something differs from what ADD installed. An announcement says where to
//! look. Most of a busy node's announcements concern other programs, and cost nothing more.

use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use kernel::monitor::{Announcement, LinkState, NftObject};
use vlan_bridge::watched::Watched;

/// The protocol number of host routes (`RTPROT_*`).
const HOST_ROUTES: u8 = 117;
/// The tables of pods' rules, and of iptables' filter, which has a rule of ours.
const OWN_TABLES: [&str; 2] = ["vlan-bridge", "vlan-bridge-uplinks"];
const FILTER: &str = "filter";

/// Whether a pass over the node should follow.
pub(crate) fn concerns(watched: &Watched, announcement: &Announcement) -> bool {
    match announcement {
        Announcement::Lost(_) => true,
        Announcement::Link(link) => is_ours(watched, link) && may_be_broken(watched, link),
        Announcement::Port { bridge, .. } => bridge.is_some_and(|bridge| is_bridge(watched, bridge)),
        Announcement::Vlan { index, .. } => is_bridge(watched, *index) || is_port(watched, *index),
        Announcement::Fdb { mac, learned, .. } => has_pod(watched, *mac, *learned),
        Announcement::Address { net, .. } => !is_link_local(net.addr()),
        Announcement::Route { protocol, prefix_length, gone, .. } => {
            // The source of host routes is an address of the interface of the default route.
            *prefix_length == 0 || *gone && *protocol == HOST_ROUTES
        }
        // The kernel forgets neighbours that it has learned.
        Announcement::Neighbour { address, gone, .. } => {
            *gone && address.is_some_and(|address| is_of_pod(watched, address))
        }
        Announcement::Netconf { index, .. } => index.is_none_or(|index| is_device(watched, index)),
        Announcement::Nft { table, object, gone, .. } => {
            let is_own = OWN_TABLES.contains(&table.as_str());
            let may_be_rule = matches!(object, NftObject::Table | NftObject::Chain | NftObject::Rule);
            // Each ADD adds elements.
            is_own && (*gone || *object != NftObject::Element)
                || table == FILTER && may_be_rule && (*gone || *object == NftObject::Chain)
        }
        Announcement::Rule { .. } | Announcement::NftGeneration { .. } => false,
    }
}

/// A link that attachments need: a bridge, its side of a VLAN, an uplink or what is below it, a pod's veth.
fn is_ours(watched: &Watched, link: &LinkState) -> bool {
    let side_of = link.name.split_once('.').map(|(bridge, _)| bridge);
    watched.names.contains(&link.name)
        || side_of.is_some_and(|bridge| watched.names.contains(bridge))
        || is_device(watched, link.index)
        || link.master.is_some_and(|master| is_bridge(watched, master))
        || vlan_bridge::ownership::has_our_form(&link.name)
}

/// Whether a link of ours is in a state that ADD would not leave, or a new one.
fn may_be_broken(watched: &Watched, link: &LinkState) -> bool {
    let known = links(watched).find(|known| known.index == link.index);
    match known {
        Some(known) => link.gone || !link.up || known.mtu != link.mtu || known.master != link.master,
        // A veth of ours is a port of a bridge. A bridge or an uplink that was made again has a new index.
        None => link.gone || !link.up || link.master.is_none(),
    }
}

fn links(watched: &Watched) -> impl Iterator<Item = &kernel::link::Link> {
    watched.bridges.iter().flat_map(|known| {
        let uplinks = known.uplinks.iter().flat_map(|uplink| [Some(&uplink.port), uplink.parent.as_ref()]);
        std::iter::once(&known.bridge).chain(uplinks.flatten())
    })
}

fn is_bridge(watched: &Watched, index: u32) -> bool {
    watched.bridges.iter().any(|known| known.bridge.index == index)
}

fn is_port(watched: &Watched, index: u32) -> bool {
    watched.bridges.iter().flat_map(|known| &known.uplinks).any(|uplink| uplink.port.index == index)
}

fn is_device(watched: &Watched, index: u32) -> bool {
    links(watched).any(|known| known.index == index)
}

/// Whether an entry is for the MAC of a pod. What a bridge learns and forgets is of interest only if the MAC
/// should be pinned.
fn has_pod(watched: &Watched, mac: MacAddr, learned: bool) -> bool {
    let pods = watched.bridges.iter().flat_map(|known| &known.pods);
    pods.filter(|pod| pod.is_pinned || !learned).any(|pod| pod.mac == mac)
}

fn is_of_pod(watched: &Watched, address: IpAddr) -> bool {
    let mut pods = watched.bridges.iter().flat_map(|known| &known.pods);
    pods.any(|pod| pod.addresses.contains(&address))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::family::Family;
    use kernel::monitor::Subsystem;
    use vlan_bridge::ports::RecordedPort;

    use super::*;
    use crate::testing::{BR, UPLINK, announced, watched};

    fn pod(mac: [u8; 6], addresses: Vec<IpAddr>) -> RecordedPort {
        let veth = "veth0123456789a".into();
        RecordedPort { veth, mac: MacAddr(mac), addresses, vlan: None, pod: None, is_pinned: true }
    }

    fn nft(table: &str, object: NftObject, gone: bool) -> Announcement {
        Announcement::Nft { family: 7, table: table.into(), object, gone, port: 1 }
    }

    #[test]
    fn a_link_concerns_if_it_is_ours_and_not_as_it_was() {
        let concerns = |link: LinkState| concerns(&watched(), &Announcement::Link(link));
        assert!(!concerns(announced(BR, "br136", None)));
        assert!(concerns(LinkState { up: false, ..announced(BR, "br136", None) }));
        assert!(concerns(LinkState { gone: true, ..announced(BR, "br136", None) }));
        assert!(concerns(LinkState { mtu: 1400, ..announced(UPLINK, "bond0.136", Some(BR)) }));
        assert!(concerns(announced(UPLINK, "bond0.136", None)));
        assert!(concerns(LinkState { up: false, ..announced(3, "bond0", None) }));
        assert!(concerns(announced(9, "veth0123456789a", None)));
        assert!(!concerns(announced(9, "veth0123456789a", Some(BR))));
        assert!(!concerns(LinkState { up: false, ..announced(77, "vethabc", None) }));
        assert!(!concerns(LinkState { gone: true, ..announced(77, "eth7", None) }));
    }

    #[test]
    fn what_a_bridge_learns_concerns_only_if_the_mac_should_be_pinned() {
        let concerns = |is_pinned, learned| {
            let mut watched = watched();
            let mac = MacAddr([2, 0, 0, 0, 0, 1]);
            watched.bridges[0].pods.push(RecordedPort { is_pinned, ..pod(mac.0, Vec::new()) });
            let of =
                |mac| Announcement::Fdb { index: 9, master: Some(BR), mac, vlan: None, learned, gone: true };
            assert!(!super::concerns(&watched, &of(MacAddr([2, 0, 0, 0, 0, 2]))));
            super::concerns(&watched, &of(mac))
        };
        assert!(!concerns(false, true));
        assert!(concerns(false, false) && concerns(true, true) && concerns(true, false));
    }

    #[test]
    fn of_nf_tables_only_what_was_taken_concerns_or_what_is_new_in_a_chain() {
        let concerns = |announcement: Announcement| concerns(&watched(), &announcement);
        assert!(concerns(nft("vlan-bridge", NftObject::Table, true)));
        assert!(concerns(nft("vlan-bridge", NftObject::Element, true)));
        assert!(!concerns(nft("vlan-bridge", NftObject::Element, false)));
        assert!(concerns(nft("vlan-bridge", NftObject::Rule, false)));
        assert!(concerns(nft("filter", NftObject::Chain, false)));
        assert!(!concerns(nft("filter", NftObject::Rule, false)));
        assert!(!concerns(nft("firewalld", NftObject::Table, true)));
    }

    #[test]
    fn of_routes_and_neighbours_the_loss_of_ours_concerns() {
        let mut watched = watched();
        let route = |protocol, gone| Announcement::Route {
            family: Family::V4,
            prefix_length: 32,
            oif: Some(BR),
            protocol,
            gone,
        };
        assert!(concerns(&watched, &route(HOST_ROUTES, true)));
        assert!(!concerns(&watched, &route(HOST_ROUTES, false)));
        assert!(!concerns(&watched, &route(4, true)));
        let default = |gone| Announcement::Route {
            family: Family::V4,
            prefix_length: 0,
            oif: Some(UPLINK),
            protocol: 4,
            gone,
        };
        assert!([true, false].iter().all(|gone| concerns(&watched, &default(*gone))));
        let address = IpAddr::from([10, 0, 0, 7]);
        let neighbour =
            || Announcement::Neighbour { index: BR, address: Some(address), mac: None, gone: true };
        assert!(!concerns(&watched, &neighbour()), "a learned neighbour is forgotten");
        watched.bridges[0].pods.push(pod([2, 0, 0, 0, 0, 1], vec![address]));
        assert!(concerns(&watched, &neighbour()));
        assert!(concerns(&watched, &Announcement::Lost(Subsystem::Route)));
    }
}
