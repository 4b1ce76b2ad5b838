//! Checks that refuse a configuration before anything is changed, and warnings for the log.

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use cni_conf::uplink::{Uplink, UplinkPort};
use kernel::link::{Kind, Link};

use super::observed::{BridgeAndUplink, DOT1Q};
use super::vlan::takes_part;
use super::{Plan, refuse};
use crate::ownership;

/// Checks that the interface with the bridge's name is a bridge with the settings that the configuration
/// needs.
pub(super) fn check_bridge(
    network: &Network,
    seen: &BridgeAndUplink,
    plan: &mut Plan,
) -> Result<(), CniError> {
    let Some(link) = &seen.bridge else { return Ok(()) };
    let Some(options) = link.bridge() else {
        return refuse(format!(
            "bridge: {} already exists and is not a bridge but {}",
            link.name,
            link.kind_name()
        ));
    };
    if network.trunk().is_some() && !options.vlan_filtering {
        return refuse(format!(
            "bridge {} does not filter by VLAN, and vlan and vlanTrunk need that: ip link set {} type bridge vlan_filtering 1",
            link.name, link.name
        ));
    }
    if network.port_vlans.is_none() && options.vlan_filtering && options.default_pvid == 0 {
        return refuse(format!(
            "vlan: bridge {} filters by VLAN and has no default VLAN, so a pod without vlan or vlanTrunk would reach nothing",
            link.name
        ));
    }
    if network.port_vlans.is_some() && !options.vlan_filtering {
        plan.warnings.push(format!(
            "bridge {} does not filter by VLAN, so vlan and vlanTrunk have no effect: ip link set {} type bridge vlan_filtering 1",
            link.name, link.name
        ));
    }
    if options.forward_delay > 0 && options.stp {
        plan.warnings.push(format!(
            "bridge {} runs spanning tree: it forwards packets of a new pod only after {} s",
            link.name,
            2 * options.forward_delay / 100
        ));
    }
    Ok(())
}

/// Checks the master and returns it.
pub(super) fn check_master<'a>(
    network: &Network,
    uplink: &Uplink,
    seen: &'a BridgeAndUplink,
    plan: &mut Plan,
) -> Result<&'a Link, CniError> {
    let Some(master) = &seen.master else {
        if seen.rootless {
            return refuse(format!(
                "uplink.master: {} cannot be reached by a rootless runtime, whose network is not the node's; run the container as root",
                uplink.master
            ));
        }
        return refuse(format!(
            "uplink.master: there is no interface {} on this node; it must exist before pods are attached",
            uplink.master
        ));
    };
    for link in [Some(master), seen.sub_interface.as_ref()].into_iter().flatten() {
        if let Some(mtu) = network.mtu.filter(|mtu| *mtu > link.mtu) {
            return refuse(format!("mtu: {mtu} is above the {} of {}", link.mtu, link.name));
        }
    }
    if let Kind::Bridge(_) = master.kind {
        return refuse(format!("uplink.master: {} is a bridge; name the bond or NIC instead", master.name));
    }
    if master.mac.is_none_or(|mac| mac.0 == [0; 6]) {
        return refuse(format!(
            "uplink.master: {} has no Ethernet address, so it cannot be a bridge's port; name a bond or NIC",
            master.name
        ));
    }
    check_upper(uplink, master, seen)?;
    if !master.up || !master.carrier {
        let state = if master.up { "has no carrier" } else { "is down" };
        plan.warnings.push(format!(
            "{} {state}: the pod is attached but reaches nothing beyond this node",
            master.name
        ));
    }
    if let Kind::Bond(bond) = &master.kind {
        if matches!(bond.mode.as_str(), "balance-tlb" | "balance-alb") {
            plan.warnings.push(format!(
                "{} is in mode {}, which sends frames under its members' MACs: \
                 replies to pods behind the bridge go astray; use 802.3ad or active-backup",
                master.name, bond.mode
            ));
        }
        if !bond.fail_over_mac.is_empty() && bond.fail_over_mac != "none" {
            plan.warnings.push(format!(
                "{} has fail_over_mac {}: its MAC changes with the active member while the bridge keeps the old one; use none",
                master.name, bond.fail_over_mac
            ));
        }
    }
    Ok(master)
}

/// Checks the bridge or bond of which the master is a port.
fn check_upper(uplink: &Uplink, master: &Link, seen: &BridgeAndUplink) -> Result<(), CniError> {
    let Some(upper) = &seen.upper else { return Ok(()) };
    match (&upper.kind, &uplink.port) {
        (Kind::Bond(_), _) => refuse(format!(
            "uplink.master: {} is a member of bond {}; name the bond, or its frames and its failover are lost",
            master.name, upper.name
        )),
        (Kind::Bridge(options), UplinkPort::SubInterface { vlan, .. }) if !options.vlan_filtering => {
            refuse(format!(
                "uplink.vlan: {} is a port of bridge {}, and a sub-interface would take VLAN {vlan} away from it",
                master.name, upper.name
            ))
        }
        (Kind::Bridge(_), UplinkPort::SubInterface { vlan, .. })
            if takes_part(&seen.vlans, master.index, *vlan) =>
        {
            refuse(format!(
                "uplink.vlan: {} carries VLAN {vlan} into bridge {} already",
                master.name, upper.name
            ))
        }
        _ => Ok(()),
    }
}

/// A VLAN reaches either a sub-interface of the master or a bridge above the master, never both: the kernel
/// passes the frames to the sub-interface and not to the bridge.
pub(super) fn check_vlans_are_free(
    network: &Network,
    uplink: &Uplink,
    master: &Link,
    seen: &BridgeAndUplink,
) -> Result<(), CniError> {
    let on_master = |vid: u16| {
        let of_vlan = |link: &&Link| matches!(link.kind, Kind::Vlan { id, protocol: DOT1Q } if id == vid);
        seen.sub_interfaces.iter().filter(of_vlan).find(|link| link.parent == Some(master.index))
    };
    match &uplink.port {
        UplinkPort::Master => Ok(()),
        UplinkPort::SubInterface { name, vlan } => match on_master(*vlan) {
            Some(other) if other.name != *name => refuse(format!(
                "uplink.name: VLAN {vlan} of {} already exists as {}; set uplink.name to it, or remove it",
                master.name, other.name
            )),
            _ => Ok(()),
        },
        UplinkPort::Trunk => {
            let mut wanted = network.port_vlans.iter().flat_map(|vlans| vlans.ids());
            match wanted.find_map(|vid| on_master(vid).map(|link| (vid, link))) {
                Some((vid, link)) => refuse(format!(
                    "vlan: VLAN {vid} of {} belongs to sub-interface {}, so a bridge above {} never hears it; remove {} or use uplink.vlan",
                    master.name, link.name, master.name, link.name
                )),
                None => Ok(()),
            }
        }
    }
}

/// Checks an existing interface with the name of the node's own side of the pods' VLAN.
pub(super) fn check_node_side(network: &Network, seen: &BridgeAndUplink) -> Result<(), CniError> {
    let (Some((name, vid)), Some(link)) = (network.node_side(), &seen.node_side) else { return Ok(()) };
    let bridge = seen.bridge.as_ref().map(|bridge| bridge.index);
    match link.kind {
        Kind::Vlan { id, protocol: DOT1Q } if id == vid && link.parent.is_some() && link.parent == bridge => {
            Ok(())
        }
        // If the reference plugin made the gateway, the veth's other end is a port in the VLAN.
        Kind::Veth
            if bridge.is_some() && seen.node_side_peer.as_ref().is_some_and(|peer| peer.master == bridge) =>
        {
            Ok(())
        }
        _ => refuse(format!(
            "vlan: {name} already exists and is not VLAN {vid} of bridge {}, \
             nor a veth whose other end is a port of it, which the node needs under that name",
            network.bridge
        )),
    }
}

/// An interface may become a port only if the node does not lose connectivity.
pub(super) fn check_may_become_port(
    name: &str,
    port: Option<&Link>,
    seen: &BridgeAndUplink,
) -> Result<(), CniError> {
    let Some(around) = &seen.surroundings else { return Ok(()) };
    if let Some(index) = port.and_then(|link| link.master) {
        return refuse(format!("uplink: {name} is a port of {} already", interface_by_index(seen, index)));
    }
    if around.port_has_default_route {
        return refuse(format!(
            "uplink: the default route of this node leaves by {name}; as a bridge port it would cut the node off. \
             Move the route and the addresses to another VLAN first"
        ));
    }
    if !around.port_addresses.is_empty() {
        return refuse(format!(
            "uplink: {name} carries {}; as a bridge port it would cut the node off there. \
             Move the address to another VLAN or to the bridge first",
            around.port_addresses.join(", ")
        ));
    }
    check_only_uplink(name, seen)
}

/// A bridge can have one uplink. A second one would merge two VLANs, or make a loop if both lead to the
/// same VLAN.
fn check_only_uplink(name: &str, seen: &BridgeAndUplink) -> Result<(), CniError> {
    let (Some(bridge), Some(around)) = (&seen.bridge, &seen.surroundings) else { return Ok(()) };
    let ours = ownership::is_ours(bridge);
    let leads_out = |link: &&Link| match &link.kind {
        Kind::Vlan { .. } | Kind::Bond(_) => true,
        Kind::Other(kind) if kind.is_empty() => true,
        // An operator's bridge may have virtual machines as ports. Our own bridges have only pods.
        _ => ours && !ownership::is_attachment(link),
    };
    match around.links.iter().filter(|link| link.master == Some(bridge.index)).find(leads_out) {
        Some(other) => refuse(format!(
            "bridge: {} has the uplink {} already, and with {name} as well it would join two networks into one; name another bridge",
            bridge.name, other.name
        )),
        None => Ok(()),
    }
}

/// The name of an interface that something refers to by index.
pub(super) fn interface_by_index(seen: &BridgeAndUplink, index: u32) -> String {
    let known = [&seen.master, &seen.bridge, &seen.sub_interface, &seen.upper].into_iter().flatten();
    let around = seen.surroundings.iter().flat_map(|around| &around.links);
    known
        .chain(around)
        .find(|link| link.index == index)
        .map_or_else(|| format!("interface {index}"), |link| link.name.clone())
}
