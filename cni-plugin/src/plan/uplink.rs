//! The bridge and its uplink: what exists, what is missing, and what must be refused before anything is
//! changed.

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use cni_conf::uplink::{Uplink, UplinkPort};
use kernel::link::{Kind, Link};
use kernel::port::Membership;

use super::observed::{BridgeAndUplink, DOT1Q};
use super::refusal::{
    check_bridge, check_master, check_may_become_port, check_node_side, check_vlans_are_free,
    interface_by_index,
};
use super::{Plan, Step, Sysctl, VlanMember, host_access, refuse};
use crate::ownership::is_ours;

/// Plans the bridge and its uplink. No steps means that nothing is missing. Steps planned without
/// [`BridgeAndUplink::surroundings`] only show that something is missing. Before they are applied, they are
/// planned again with the surroundings.
pub fn plan(network: &Network, seen: &BridgeAndUplink) -> Result<Plan, CniError> {
    let mut plan = Plan::default();
    check_bridge(network, seen, &mut plan)?;
    check_node_side(network, seen)?;
    let Some(uplink) = &network.uplink else {
        plan_bridge(network, seen, None, &mut plan);
        finish_bridge(network, seen, &mut plan);
        return Ok(plan);
    };
    let master = check_master(network, uplink, seen, &mut plan)?;
    check_vlans_are_free(network, uplink, master, seen)?;
    let port = plan_port(uplink, master, seen, &mut plan)?;
    plan_bridge(network, seen, Some(master), &mut plan);
    let bridge_index = seen.bridge.as_ref().map(|bridge| bridge.index);
    let port_link = port.filter(|link| link.master.is_some() && link.master == bridge_index);
    if port_link.is_none() {
        check_may_become_port(uplink.port_name(), port, seen)?;
        plan.steps.push(Step::Enslave { port: uplink.port_name().into(), bridge: network.bridge.clone() });
        if let Some(bridge) = &seen.bridge {
            plan_adoption(uplink, bridge, &mut plan);
        }
    }
    // A sub-interface cannot come up while its master is down. It comes up by itself with the master.
    if matches!(uplink.port, UplinkPort::SubInterface { .. }) && master.up && port.is_none_or(|link| !link.up)
    {
        plan.steps.push(Step::Up(uplink.port_name().into()));
    }
    finish_bridge(network, seen, &mut plan);
    Ok(plan)
}

/// Plans the interface that becomes the bridge's port, if it must be made. Returns it if it exists.
fn plan_port<'a>(
    uplink: &Uplink,
    master: &'a Link,
    seen: &'a BridgeAndUplink,
    plan: &mut Plan,
) -> Result<Option<&'a Link>, CniError> {
    let UplinkPort::SubInterface { name, vlan } = &uplink.port else { return Ok(Some(master)) };
    let Some(link) = &seen.sub_interface else {
        plan.steps.push(Step::CreateVlan { name: name.clone(), parent: uplink.master.clone(), id: *vlan });
        plan.steps.push(Step::Sysctl(Sysctl::accept_ra_off(name)));
        return Ok(None);
    };
    let Kind::Vlan { id, protocol } = link.kind else {
        return refuse(format!(
            "uplink: {name} already exists and is not a VLAN sub-interface but {}",
            link.kind_name()
        ));
    };
    if id != *vlan || protocol != DOT1Q || link.parent != Some(master.index) {
        let parent = link.parent.map_or("nothing".to_owned(), |index| interface_by_index(seen, index));
        return refuse(format!(
            "uplink: {name} already exists with VLAN {id}, protocol {protocol:#06x}, on {parent}; \
             expected is VLAN {vlan}, protocol 0x8100, on {}",
            master.name
        ));
    }
    if link.accept_ra.is_some_and(|accept| accept != 0) {
        plan.steps.push(Step::Sysctl(Sysctl::accept_ra_off(name)));
    }
    Ok(Some(link))
}

/// A bridge that existed before its uplink keeps its MAC and MTU. The uplink leaves the bridge's default
/// VLAN, to which the kernel adds new ports: no pod uses that VLAN.
fn plan_adoption(uplink: &Uplink, bridge: &Link, plan: &mut Plan) {
    plan.steps.push(Step::Pin { name: bridge.name.clone(), mac: bridge.mac, mtu: Some(bridge.mtu) });
    let default = bridge.bridge().map_or(0, |options| options.default_pvid);
    if uplink.port == UplinkPort::Trunk && default != 0 {
        let vlans = vec![Membership::access(default)];
        plan.steps.push(Step::LeaveVlans { member: VlanMember::Port(uplink.master.clone()), vlans });
    }
}

fn plan_bridge(network: &Network, seen: &BridgeAndUplink, master: Option<&Link>, plan: &mut Plan) {
    if seen.bridge.is_some() {
        return;
    }
    let trunk = network.uplink.as_ref().is_some_and(|uplink| uplink.port == UplinkPort::Trunk);
    // Without an uplink, the kernel's default VLAN stays, as with the reference plugin.
    let default_pvid = if trunk { 0 } else { 1 };
    let known_mac = seen.surroundings.as_ref().and_then(|around| around.known_mac);
    let port_mac = seen.sub_interface.as_ref().and_then(|link| link.mac);
    let master_mac = master.and_then(|link| link.mac);
    plan.steps.push(Step::CreateBridge {
        name: network.bridge.clone(),
        mac: known_mac.or(port_mac).or(master_mac),
        mtu: pod_mtu(network, seen),
        vlan_filtering: network.port_vlans.as_ref().map(|_| default_pvid),
        multicast_snooping: network.multicast_snooping,
    });
    if master.is_none() {
        plan.steps.push(Step::Sysctl(Sysctl::accept_dad_off(&network.bridge)));
    }
    // No host behind the bridge is a router of the node, and no pod may act as one.
    plan.steps.push(Step::Sysctl(Sysctl::accept_ra_off(&network.bridge)));
}

fn finish_bridge(network: &Network, seen: &BridgeAndUplink, plan: &mut Plan) {
    let name = &network.bridge;
    if let Some(bridge) = &seen.bridge {
        if is_unfinished(bridge) {
            plan.steps.push(Step::MarkAsOurs(name.clone()));
        }
        let adopted = plan.steps.iter().any(|step| matches!(step, Step::Pin { .. }));
        if seen.bridge_mac_may_change && !adopted {
            // Pods have this MAC in their neighbour entries for gateway and node.
            plan.steps.push(Step::Pin { name: name.clone(), mac: bridge.mac, mtu: None });
        }
        if bridge.bridge().is_some_and(|options| options.forward_delay > 0 && !options.stp) {
            plan.steps.push(Step::ClearForwardDelay(name.clone()));
        }
        // Only on our own bridges, and only if several VLANs share the result of a querier in one of them.
        let snoops = bridge.bridge().is_some_and(|options| options.multicast_snooping);
        if snoops && network.trunk().is_some() && !network.multicast_snooping && is_ours(bridge) {
            plan.steps.push(Step::NoMulticastSnooping(name.clone()));
        }
        if network.uplink.is_some() && bridge.accept_ra.is_some_and(|accept| accept != 0) {
            plan_advertisements(bridge, seen, plan);
        }
    }
    if network.node_side().is_none() {
        plan.steps.extend(host_access::of_device(network, name, seen.bridge.as_ref()));
    }
    if network.promisc && seen.bridge.as_ref().is_none_or(|bridge| !bridge.promisc) {
        plan.steps.push(Step::Promisc(name.clone()));
    }
    if seen.bridge.as_ref().is_none_or(|bridge| !bridge.up) {
        plan.steps.push(Step::Up(name.clone()));
    }
}

/// Whether an ADD was killed right after it made the bridge: the kernel does not accept an alias in the
/// message that creates a bridge. An operator's bridge has the kernel's default forward delay until someone
/// configures it and brings it up.
fn is_unfinished(bridge: &Link) -> bool {
    let no_delay = bridge.bridge().is_some_and(|options| options.forward_delay == 0);
    no_delay && !bridge.up && bridge.alias.is_none()
}

/// An operator's bridge with an address from a router advertisement keeps it. Without it, the node may be
/// unreachable.
fn plan_advertisements(bridge: &Link, seen: &BridgeAndUplink, plan: &mut Plan) {
    if seen.bridge_has_dynamic_address {
        plan.warnings.push(format!(
            "bridge {} has an address from a router advertisement and continues to accept them",
            bridge.name
        ));
    } else {
        plan.steps.push(Step::Sysctl(Sysctl::accept_ra_off(&bridge.name)));
    }
}

/// The MTU of the pod's veth pair in bytes: as configured, else the uplink's, else the kernel's default.
pub fn pod_mtu(network: &Network, seen: &BridgeAndUplink) -> Option<u32> {
    network.mtu.or_else(|| seen.sub_interface.as_ref().or(seen.master.as_ref()).map(|link| link.mtu))
}

#[cfg(test)]
mod tests;
