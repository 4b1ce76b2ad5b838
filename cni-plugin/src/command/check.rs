//! CHECK: everything is still as ADD reported it.

use std::net::IpAddr;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::network::Network;
use cni_conf::request::Request;
use kernel::{Conn, addr, fdb, link, port, route, rule};
use serde_json::Value;

use crate::delegate::Delegate;
use crate::nat::BridgedDrop;
use crate::ownership::Attachment;
use crate::plan::observed::BridgeAndUplink;
use crate::plan::{Step, check, uplink};
use crate::{boundary, config, guard, host_access, nat, observe, pod, ports, requested_mac};

/// Checks the bridge, the uplink, the attachment, and with IPAM's CHECK the lease.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let network = config::checked(request)?;
    let previous = request.prev_result()?.ok_or_else(|| {
        CniError::config(
            "prevResult is missing: CHECK compares with the result of ADD, which the runtime passes on",
        )
    })?;
    let namespace = pod::required_namespace(&request.env, code::UNKNOWN_CONTAINER)?;
    let node = Conn::open()?;
    let inside = namespace.enter(Conn::open)??;

    let uplink = observe::settled(&node, &network).await?;
    check_uplink(&network, &uplink)?;
    let attached = observe_attached(&node, &inside, request, &network, uplink).await?;
    check::compare(&network, &request.env.ifname, &previous, &attached).map_err(failed)?;
    check_port_of_mac(&node, &network, &attached).await?;
    host_access::check(&node, &inside, &network, &previous, &attached).await?;
    let mac = attached.container.as_ref().and_then(|container| container.mac);
    let addresses: Vec<IpAddr> =
        check::own_addresses(&previous, &request.env.ifname).map(|ip| ip.address.addr()).collect();
    check_rules(request, &network, mac, &addresses)?;
    if let Some(plugin) = &network.ipam {
        Delegate::find(plugin, request)?.call(Command::Check)?;
    }
    Ok(None)
}

fn failed(why: String) -> CniError {
    CniError::new(code::CHECK_FAILED, why)
}

/// That an ADD would find bridge and uplink complete.
fn check_uplink(network: &Network, uplink: &BridgeAndUplink) -> Result<(), CniError> {
    let plan = uplink::plan(network, uplink).map_err(|e| failed(e.msg))?;
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
    // A bridge that nobody has pinned yet is as it should be until its MAC changes, which the comparison with
    // the result notices. And an earlier release left multicast snooping on.
    let is_new = |step: &&Step| matches!(step, Step::Pin { mtu: None, .. } | Step::NoMulticastSnooping(_));
    let missing: Vec<String> =
        plan.steps.iter().filter(|step| !is_new(step)).map(ToString::to_string).collect();
    if uplink.bridge.is_none() || missing.is_empty() {
        return Ok(());
    }
    let what = if network.uplink.is_some() { " and its uplink are" } else { " is" };
    Err(failed(format!(
        "bridge {}{what} not as an ADD leaves it; it would do: {}",
        network.bridge,
        missing.join("; ")
    )))
}

/// Both ends of the veth, and what the pod has.
async fn observe_attached(
    node: &Conn,
    inside: &Conn,
    request: &Request,
    network: &Network,
    uplink: BridgeAndUplink,
) -> Result<check::Attached, CniError> {
    let container = link::by_name(inside, &request.env.ifname).await?;
    let host = match container.as_ref().and_then(|link| link.parent) {
        Some(index) => link::by_index(node, index).await?,
        None => None,
    };
    let addresses = match &container {
        Some(container) => addr::list(inside, container.index).await?,
        None => Vec::new(),
    };
    Ok(check::Attached {
        bridge: uplink.bridge,
        addresses,
        host,
        container,
        routes: route::list(inside).await?,
        rules: rule::by_source(inside).await?,
        trunk: network.trunk().and(uplink.master).map(|master| master.index),
        vlans: if network.port_vlans.is_some() { port::vlans(node).await? } else { Vec::new() },
    })
}

/// That the packet filter has all of the attachment's rules, and that no other rule drops its packets.
fn check_rules(
    request: &Request,
    network: &Network,
    mac: Option<MacAddr>,
    addresses: &[IpAddr],
) -> Result<(), CniError> {
    let attachment = Attachment::of(request);
    if let Some(mac) = mac
        && let Some(difference) = guard::difference(network, &attachment, mac, addresses)?
    {
        return Err(failed(format!(
            "{difference}; the next ADD, DEL or GC on this node puts back what is gone"
        )));
    }
    if let Some(difference) = nat::difference(&attachment.host_interface(), network.has_nat())? {
        return Err(failed(format!(
            "{difference}; after a firewall's restart the next ADD or DEL on this node puts everything back"
        )));
    }
    if let Some(difference) = boundary::difference(network)? {
        return Err(failed(format!("{difference}; the next ADD, DEL or GC on this node puts it back")));
    }
    if network.uplink.is_none() {
        return Ok(());
    }
    match nat::bridged_difference(&network.bridge, addresses)? {
        None => Ok(()),
        Some(BridgedDrop { what, is_doubtful: true }) => {
            log::warn!(
                "{what}, unless other rules there let it pass, which are about it or about what is bridged"
            );
            Ok(())
        }
        Some(BridgedDrop { what, .. }) => {
            Err(failed(format!("{what}; the next ADD of a pod on it lets it pass, for all of them")))
        }
    }
}

/// That the bridge has the pod's MAC behind its own port: anywhere else, and what is for the pod goes there.
async fn check_port_of_mac(node: &Conn, network: &Network, seen: &check::Attached) -> Result<(), CniError> {
    let (Some(bridge), Some(host), Some(mac)) =
        (&seen.bridge, &seen.host, seen.container.as_ref().and_then(|container| container.mac))
    else {
        return Ok(());
    };
    for vid in requested_mac::vids(network, bridge).into_iter().filter(|_| network.mac_is_pinned()) {
        match fdb::entry(node, bridge.index, mac, vid).await? {
            Some(entry) if entry.port != host.index => {
                let port = link::by_index(node, entry.port).await?;
                let name = port.map_or_else(|| format!("interface {}", entry.port), |port| port.name);
                return Err(CniError::new(
                    code::CHECK_FAILED,
                    format!(
                        "bridge {} has the pod's MAC {mac} behind {name}, not behind {}",
                        bridge.name, host.name
                    ),
                ));
            }
            // So do releases without `sticky` pin it, which write no record of the port: what cannot be
            // repaired is no failure.
            Some(entry) if entry.kind == fdb::Kind::Static && !entry.sticky => {
                if ports::of_veth(&host.name)?.is_none() {
                    log::warn!(
                        "a frame with the pod's MAC {mac} that comes in elsewhere moves it from {}: an earlier release has \
                         attached the pod; it has to be started anew to be pinned",
                        host.name
                    );
                    continue;
                }
                return Err(CniError::new(
                    code::CHECK_FAILED,
                    format!(
                        "a frame with the pod's MAC {mac} that comes in elsewhere moves it from {} (not sticky); \
                         vlan-bridgectl repair pins it again",
                        host.name
                    ),
                ));
            }
            // A locked port lets nothing in without it.
            None if network.mac_spoof_check => {
                return Err(CniError::new(
                    code::CHECK_FAILED,
                    format!(
                        "bridge {} no longer has the pod's MAC {mac} pinned to {}",
                        bridge.name, host.name
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
