//! The trunk topology: VLANs of the ports and the uplink of a bridge with VLAN filtering.

use std::net::Ipv4Addr;

use cni_conf::network::Network;
use cni_conf::vlans::PortVlans;
use ipnet::{IpNet, Ipv4Net};
use kernel::link::{Address, Kind, Link};
use kernel::port::{Membership, Memberships};

use super::{Step, Sysctl, VlanMember, host_access};

/// The VLANs that a pod's port joins.
pub fn of_port(wanted: &PortVlans) -> Vec<Membership> {
    let tagged =
        wanted.trunk.iter().filter(|vid| Some(**vid) != wanted.access).map(|vid| Membership::tagged(*vid));
    wanted.access.map(Membership::access).into_iter().chain(tagged).collect()
}

/// The default VLAN that a pod's port must leave. With an uplink it always leaves, because VLAN 1 would
/// connect all pods beside their own VLANs. Otherwise the configuration decides.
pub fn default_to_leave(network: &Network, bridge: &Link) -> Option<Membership> {
    let wanted = network.port_vlans.as_ref()?;
    let default = bridge.bridge()?.default_pvid;
    // As with the reference plugin, a port with only tagged VLANs stays in the default VLAN.
    let leave = network.uplink.is_some() || !wanted.keep_default && wanted.access.is_some();
    let is_wanted = wanted.ids().any(|vid| vid == default);
    (leave && default != 0 && !is_wanted).then(|| Membership::access(default))
}

/// `rp_filter` 2: the source must be reachable by any interface (RFC 3704 section 2.4). With br_netfilter,
/// the kernel changes the destination of a packet on the bridge and then checks its source against the
/// bridge device, which is not in the pods' VLAN. With a stricter value it would drop what a pod sends to a
/// service. The device receives nothing itself, so the loose mode exposes nothing.
const LOOSE: i32 = 2;

/// The kernel applies the loose mode only if the device has an address. This address belongs to no host
/// (RFC 7600 section 6, "IPv4 dummy address").
pub const DUMMY: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 8), 32));

/// Steps that add the VLANs of a pod's port to the uplink, if there is one, and make the node's own side of
/// them. Empty if nothing is missing. The caller holds the node's lock, and the pod's port has joined its
/// VLANs already. So a DEL that looks for unused VLANs under that lock sees the port.
pub fn join(
    network: &Network,
    bridge: &Link,
    uplink: Option<&Link>,
    node_side: Option<&Link>,
    bridge_has_address: bool,
    seen: &[Memberships],
) -> Vec<Step> {
    let Some(wanted) = &network.port_vlans else { return Vec::new() };
    let mut steps = Vec::new();
    if let Some(uplink) = uplink {
        let missing = wanted.ids().filter(|vid| !takes_part(seen, uplink.index, *vid));
        let vlans: Vec<Membership> = missing.map(Membership::tagged).collect();
        if !vlans.is_empty() {
            steps.push(Step::JoinVlans { member: VlanMember::Port(uplink.name.clone()), vlans });
        }
    }
    let Some((name, vid)) = network.node_side() else { return steps };
    // A veth needs no membership of the bridge device: its other end is a port.
    if node_side.is_none_or(|side| side.kind != Kind::Veth) && !takes_part(seen, bridge.index, vid) {
        let vlans = vec![Membership::tagged(vid)];
        steps.push(Step::JoinVlans { member: VlanMember::Bridge(bridge.name.clone()), vlans });
    }
    let is_loose = bridge.rp_filter == Some(LOOSE) && bridge_has_address;
    if network.has_nat() && crate::ownership::is_ours(bridge) && !is_loose {
        steps.push(Step::AddDummyAddress(bridge.name.clone()));
        steps.push(Step::Sysctl(Sysctl::rp_filter_loose(&bridge.name)));
    }
    if node_side.is_none() {
        steps.push(Step::CreateVlan { name: name.clone(), parent: bridge.name.clone(), id: vid });
        steps.push(Step::Sysctl(Sysctl::accept_ra_off(&name)));
    }
    steps.extend(host_access::of_device(network, &name, node_side));
    if node_side.is_none_or(|link| !link.up) {
        steps.push(Step::Up(name));
    }
    steps
}

/// Which of these VLANs the uplink carries and no other port of the bridge uses. Empty on a bridge that we
/// did not make: the uplink's VLANs may be the operator's.
pub fn out_of_use(vids: &[u16], bridge: &Link, uplink: &Link, seen: &[Memberships]) -> Vec<u16> {
    if !crate::ownership::is_ours(bridge) {
        return Vec::new();
    }
    let used = in_use(vids, bridge, uplink, seen);
    vids.iter().copied().filter(|vid| takes_part(seen, uplink.index, *vid) && !used.contains(vid)).collect()
}

/// Which of these VLANs a port of the bridge other than the uplink uses.
pub fn in_use(vids: &[u16], bridge: &Link, uplink: &Link, seen: &[Memberships]) -> Vec<u16> {
    let others = || seen.iter().filter(|port| port.bridge == Some(bridge.index) && port.port != uplink.index);
    let used = |vid: &u16| others().any(|port| port.vlans.iter().any(|vlan| vlan.vid == *vid));
    vids.iter().copied().filter(used).collect()
}

/// The VLANs of a bridge that the node itself uses: those of sub-interfaces that are not ours, have an
/// address, are a port, or have an interface above them.
pub fn of_the_node(bridge: &Link, interfaces: &[Link], addresses: &[Address]) -> Vec<u16> {
    let carries = |side: &Link| addresses.iter().any(|held| held.interface == side.index && !held.link_local);
    let is_below = |side: &Link| {
        interfaces.iter().any(|upper| upper.parent == Some(side.index) && upper.parent_namespace.is_none())
    };
    let is_used = |side: &Link| {
        !crate::ownership::is_ours(side) || side.master.is_some() || carries(side) || is_below(side)
    };
    let sides = interfaces.iter().filter(|side| side.parent == Some(bridge.index));
    sides
        .filter_map(|side| match side.kind {
            Kind::Vlan { id, .. } if is_used(side) => Some(id),
            _ => None,
        })
        .collect()
}

/// The VLANs of a port.
pub fn of_member(seen: &[Memberships], port: u32) -> Vec<u16> {
    let entries = seen.iter().filter(|entry| entry.port == port);
    entries.flat_map(|entry| entry.vlans.iter().map(|vlan| vlan.vid)).collect()
}

/// The step that removes VLANs from the uplink.
pub fn leave(uplink: &Link, vids: &[u16]) -> Step {
    Step::LeaveVlans {
        member: VlanMember::Port(uplink.name.clone()),
        vlans: vids.iter().copied().map(Membership::tagged).collect(),
    }
}

/// The step that adds them again.
pub fn rejoin(uplink: &Link, vids: &[u16]) -> Step {
    Step::JoinVlans {
        member: VlanMember::Port(uplink.name.clone()),
        vlans: vids.iter().copied().map(Membership::tagged).collect(),
    }
}

/// True if the port is in the VLAN.
pub fn takes_part(seen: &[Memberships], port: u32, vid: u16) -> bool {
    seen.iter().any(|entry| entry.port == port && entry.vlans.iter().any(|vlan| vlan.vid == vid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::NODE_ALIAS;
    use crate::plan::testing::{link, network};
    use kernel::link::Bridge;

    const UPLINK: u32 = 2;
    const BRIDGE: u32 = 3;
    const POD: u32 = 10;

    fn uplink() -> Link {
        Link { master: Some(BRIDGE), ..link(UPLINK, "bond0", Kind::Other(String::new())) }
    }

    fn bridge(alias: Option<&str>) -> Link {
        let options = Bridge { vlan_filtering: true, default_pvid: 1, ..Bridge::default() };
        Link { alias: alias.map(str::to_owned), ..link(BRIDGE, "br0", Kind::Bridge(options)) }
    }

    fn port(index: u32, vlans: &[u16]) -> Memberships {
        let vlans = vlans.iter().map(|vid| Membership::tagged(*vid)).collect();
        Memberships { port: index, bridge: (index != BRIDGE).then_some(BRIDGE), vlans }
    }

    #[test]
    fn the_access_vlan_is_untagged_and_the_trunk_is_not() {
        let network = network(
            r#""uplink": {"master": "bond0"}, "vlan": 136, "vlanTrunk": [{"minID": 135, "maxID": 137}]"#,
        );
        let wanted = network.port_vlans.as_ref().unwrap();
        assert_eq!(
            of_port(wanted),
            [Membership::access(136), Membership::tagged(135), Membership::tagged(137)]
        );
        assert_eq!(default_to_leave(&network, &bridge(None)), Some(Membership::access(1)));
    }

    #[test]
    fn without_an_uplink_the_default_vlan_is_kept_where_it_is_asked_for() {
        assert_eq!(default_to_leave(&network(r#""vlan": 136"#), &bridge(None)), Some(Membership::access(1)));
        let kept = network(r#""vlan": 136, "preserveDefaultVlan": true"#);
        assert_eq!(default_to_leave(&kept, &bridge(None)), None);
    }

    #[test]
    fn joining_adds_what_is_missing_and_nothing_twice() {
        let network = network(r#""bridge": "br0", "uplink": {"master": "bond0"}, "vlan": 136"#);
        let joined = |seen: &[Memberships], side: Option<&Link>| {
            join(&network, &bridge(None), Some(&uplink()), side, true, seen)
        };
        let vlans = vec![Membership::tagged(136)];
        let expected = [
            Step::JoinVlans { member: VlanMember::Port("bond0".into()), vlans: vlans.clone() },
            Step::JoinVlans { member: VlanMember::Bridge("br0".into()), vlans },
            Step::CreateVlan { name: "br0.136".into(), parent: "br0".into(), id: 136 },
            Step::Sysctl(Sysctl::accept_ra_off("br0.136")),
            Step::Up("br0.136".into()),
        ];
        assert_eq!(joined(&[port(POD, &[136])], None), expected);
        let side = link(4, "br0.136", Kind::Vlan { id: 136, protocol: 0x8100 });
        assert_eq!(joined(&[port(UPLINK, &[136]), port(BRIDGE, &[136])], Some(&side)), []);
    }

    #[test]
    fn a_trunk_beneath_services_filters_loosely_and_has_an_address() {
        let network = network(
            r#""bridge": "br0", "uplink": {"master": "bond0"}, "vlan": 136, "serviceCIDRs": ["10.96.0.0/12"],
               "ipam": {"type": "static"}"#,
        );
        let joined = |rp_filter: i32, has_address: bool| {
            let bridge = Link { rp_filter: Some(rp_filter), ..bridge(Some(NODE_ALIAS)) };
            let steps = join(&network, &bridge, Some(&uplink()), None, has_address, &[]);
            steps.contains(&Step::Sysctl(Sysctl::rp_filter_loose("br0")))
        };
        assert!(!joined(2, true) && joined(1, true) && joined(2, false));
    }

    #[test]
    fn a_vlan_leaves_our_uplink_with_its_last_port() {
        let left = |alias: Option<&str>, seen: &[Memberships]| {
            out_of_use(&[136], &bridge(alias), &uplink(), seen).len()
        };
        let unused = [port(UPLINK, &[136, 137]), port(BRIDGE, &[136]), port(POD, &[137])];
        assert_eq!(left(Some(NODE_ALIAS), &unused), 1);
        assert_eq!(left(Some("the operator's"), &unused), 0);
        let used = [port(UPLINK, &[136]), port(POD, &[136])];
        assert_eq!(left(Some(NODE_ALIAS), &used), 0);
        assert_eq!(left(Some(NODE_ALIAS), &[port(UPLINK, &[137])]), 0);
    }
}
