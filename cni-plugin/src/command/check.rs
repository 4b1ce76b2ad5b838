//! CHECK: compares the attachment with what ADD reported.

use std::fmt::Display;
use std::net::IpAddr;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::cni::result::AddResult;
use cni_conf::network::Network;
use cni_conf::request::Request;
use kernel::{Conn, addr, fdb, link, port, route, rule};
use serde_json::Value;

use crate::delegate::Delegate;
use crate::nat::BridgedDrop;
use crate::ownership::Attachment;
use crate::plan::observed::BridgeAndUplink;
use crate::plan::{Step, check, difference, uplink};
use crate::record::{NatRecord, Records};
use crate::{boundary, config, gateway, guard, host_access, nat, observe, pod, ports, requested_mac};

/// Checks the bridge, the uplink, the attachment, and with IPAM's CHECK the lease.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let network = config::checked(request)?;
    let previous = request.prev_result()?.ok_or_else(|| {
        CniError::config(
            "prevResult is missing: CHECK compares with the result of ADD, which the runtime must pass",
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
    check_gateway(&node, request, &network, &previous).await?;
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

/// The difference from what ADD left, which `vlan-bridgectl repair` restores.
fn repairable(why: impl Display) -> CniError {
    failed(difference::repairable(why))
}

/// Checks that an ADD would find bridge and uplink complete.
fn check_uplink(network: &Network, uplink: &BridgeAndUplink) -> Result<(), CniError> {
    let plan = uplink::plan(network, uplink).map_err(|e| failed(e.msg))?;
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
    // A bridge without a pinned MAC is fine until its MAC changes, and the comparison with the result
    // notices that. An earlier release left multicast snooping on.
    let is_accepted =
        |step: &&Step| matches!(step, Step::Pin { mtu: None, .. } | Step::NoMulticastSnooping(_));
    let missing: Vec<String> =
        plan.steps.iter().filter(|step| !is_accepted(step)).map(ToString::to_string).collect();
    if uplink.bridge.is_none() || missing.is_empty() {
        return Ok(());
    }
    let what = if network.uplink.is_some() { " and its uplink are" } else { " is" };
    Err(repairable(format!(
        "bridge {}{what} not as an ADD leaves it, which would do: {}",
        network.bridge,
        missing.join("; ")
    )))
}

/// Observes both ends of the veth and the pod's addresses, routes and rules.
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

/// Checks that the node still has the address of the pod's gateway.
async fn check_gateway(
    node: &Conn,
    request: &Request,
    network: &Network,
    previous: &AddResult,
) -> Result<(), CniError> {
    let ips = check::own_addresses(previous, &request.env.ifname).cloned().collect();
    let own = AddResult { ips, ..previous.clone() };
    match gateway::lost(node, network, &own).await? {
        None => Ok(()),
        Some(lost) => Err(repairable(format!(
            "the node lacks the address of the pods' gateway, and an ADD would do: {lost}"
        ))),
    }
}

/// Checks that the packet filter has all rules of the attachment, and that no other rule drops its packets.
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
        return Err(repairable(difference));
    }
    let veth = attachment.host_interface();
    if let Some(difference) = nat::difference(&veth, network.has_nat())? {
        // The rules are restored from the record.
        let has_record = Records::<NatRecord>::of_this_node()?.has(&veth);
        return Err(if has_record { repairable(difference) } else { failed(difference) });
    }
    if let Some(difference) = boundary::difference(network)? {
        return Err(repairable(difference));
    }
    if network.uplink.is_none() {
        return Ok(());
    }
    match nat::bridged_difference(&network.bridge, addresses)? {
        None => Ok(()),
        Some(BridgedDrop { what, is_doubtful: true }) => {
            log::warn!(
                "{what}, unless another rule in that table accepts it: some match the bridge or bridged packets"
            );
            Ok(())
        }
        Some(BridgedDrop { what, .. }) => Err(repairable(what)),
    }
}

/// Checks that the bridge has the pod's MAC behind the pod's own port. Otherwise packets to the pod go
/// elsewhere.
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
                let why = format!(
                    "bridge {} has the pod's MAC {mac} behind {name}, not behind {}",
                    bridge.name, host.name
                );
                // Repair leaves the kernel's own entries.
                return Err(if entry.kind == fdb::Kind::Local { failed(why) } else { repairable(why) });
            }
            // Releases without `sticky` pinned the MAC like this and wrote no record of the port. Nothing
            // can repair that, so CHECK does not fail.
            Some(entry) if entry.kind == fdb::Kind::Static && !entry.sticky => {
                if ports::of_veth(&host.name)?.is_none() {
                    log::warn!(
                        "a frame with the pod's MAC {mac} on another port moves the MAC from {}: an earlier release \
                         attached the pod; restart the pod to pin its MAC",
                        host.name
                    );
                    continue;
                }
                return Err(repairable(format!(
                    "a frame with the pod's MAC {mac} on another port moves the MAC from {} (not sticky)",
                    host.name
                )));
            }
            // A locked port accepts nothing without this entry.
            None if network.mac_spoof_check => {
                return Err(repairable(format!(
                    "bridge {} no longer has the pod's MAC {mac} pinned to {}",
                    bridge.name, host.name
                )));
            }
            _ => {}
        }
    }
    Ok(())
}
