//! The pods' way to their own node and back (`hostAccess`): looked at, planned by
//! `plan::host_access`, and taken.
//!
//! The node's routes to pods hang on the bridge, so they outlive a veth. Their metric is the attachment's, by
//! which they are found again where nothing else is left of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::family::Family;
use cni_conf::host_access::HostAccess;
use ipnet::IpNet;
use kernel::link::{HostRoute, Link};
use kernel::sysctl::InterfaceSysctls;
use kernel::{Batch, Conn, Request, Result, addr, link, neigh, route};

use crate::ownership::{is_attachment, metric_of};
use crate::plan::host_access::{self as plan, NodeAddresses};
use crate::pod::Pod;
use crate::record::Record;
use crate::undo::UndoLog;

mod check;
mod records;
mod remove;
mod repair;

pub use check::{Missing, check, missing};
pub use records::{delete_record, recorded_veths};
pub use remove::{OwnRoutes, delete_stale_records, detach, remove, remove_stale};
pub use repair::{repair, repair_and_log};

/// The routes between a pod and its node.
#[derive(Clone, Debug)]
pub struct HostRoutes {
    /// The node's addresses that the pod has on the link.
    pub to_node: Vec<IpAddr>,
    /// Each address of the pod that the node has on the link, and from which of its own it sends there.
    pub to_pod: Vec<(IpAddr, IpAddr)>,
    /// Destinations for which the pod's way leads through the node, and by which of its addresses.
    pub services: Vec<(IpNet, IpAddr)>,
    /// Routes of ours to the pod's addresses that are there: its own, or those of others which have or had
    /// the same address.
    pub there: Vec<HostRoute>,
}

impl HostRoutes {
    /// The node's address of each family, from which it sends to the pod.
    pub fn sources(&self) -> Vec<IpAddr> {
        let mut sources: Vec<IpAddr> = self.to_pod.iter().map(|(_, source)| *source).collect();
        sources.dedup_by_key(|source| source.is_ipv4());
        sources
    }
}

/// Looks which routes a pod with these addresses has to its node. `device` is the node's own on the pods'
/// network.
pub async fn host_routes(
    node: &Conn,
    wanted: &HostAccess,
    device: &Link,
    pods: &[IpAddr],
) -> Result<HostRoutes> {
    let mut seen = NodeAddresses::default();
    let (mut without_us, mut there) = (Vec::new(), Vec::new());
    for pod in pods {
        let ours = route::ours_to(node, *pod).await?;
        let found = way_out(node, *pod, ours.is_some()).await?;
        there.extend(ours);
        seen.ways_out.extend(found.map(|(interface, _)| interface));
        without_us.push(found.map(|(_, source)| source));
    }
    for family in Family::BOTH {
        if pods.iter().any(|pod| Family::of(*pod) == family) {
            seen.addresses.extend(addr::of_family(node, family).await?.into_iter().filter(plan::may_count));
        }
    }
    let carriers: BTreeSet<u32> = seen.addresses.iter().map(|address| address.interface).collect();
    for index in carriers {
        seen.links.extend(link::by_index(node, index).await?);
    }
    let to_node = plan::addresses(wanted, device, &seen);
    for entry in plan::unmatched(wanted, &to_node, &seen) {
        log::warn!("hostAddresses: the node has no address for {entry}");
    }
    let to_pod = pods.iter().zip(without_us).filter_map(|(pod, without_us)| {
        plan::source(*pod, &to_node, without_us).map(|source| (*pod, source))
    });
    let to_pod: Vec<(IpAddr, IpAddr)> = to_pod.collect();
    let through = |net: &IpNet| {
        let of_family = |(pod, _): &&(IpAddr, IpAddr)| Family::of(*pod) == Family::of_net(net);
        to_pod.iter().find(of_family).map(|(_, source)| (*net, *source))
    };
    let services: Vec<(IpNet, IpAddr)> = wanted.services.iter().filter_map(through).collect();
    let is_led = |net: &IpNet| services.iter().any(|(led, _)| led == net);
    let of_pods = |net: &IpNet| pods.iter().any(|pod| Family::of(*pod) == Family::of_net(net));
    for net in wanted.services.iter().filter(|net| of_pods(net) && !is_led(net)) {
        log::warn!(
            "serviceCIDRs: {net} does not lead through the node: it has no address of that family that pods reach"
        );
    }
    Ok(HostRoutes { services, to_pod, to_node, there })
}

/// By which interface and from which address the node sends to a pod when it has no route of ours to it. The
/// source of one of ours was found in this way; the interface is then the default route's.
async fn way_out(node: &Conn, pod: IpAddr, is_ours: bool) -> Result<Option<(u32, IpAddr)>> {
    let Some((interface, source)) = route::lookup(node, pod).await? else { return Ok(None) };
    let default = if is_ours { route::default_interface(node, Family::of(pod)).await? } else { None };
    Ok(Some((default.unwrap_or(interface), source)))
}

/// Whether the pod is on a network of others beside ours: another of its interfaces has an address or a
/// default route, and no route of ours. To such a pod the node speaks by that network too, and what the pod
/// answers must not come by ours, where nobody waits for it.
pub async fn has_foreign_network(pod: &Conn, container: &Link) -> Result<bool> {
    const LOOPBACK: u32 = 1;
    if link::all(pod).await?.iter().all(|link| [LOOPBACK, container.index].contains(&link.index)) {
        return Ok(false);
    }
    let addresses = addr::all(pod).await?.into_iter().filter(|held| !held.link_local);
    let defaults = route::list(pod).await?.into_iter().filter(|there| there.route.dst.prefix_len() == 0);
    let others: BTreeSet<u32> = addresses
        .map(|held| held.interface)
        .chain(defaults.filter_map(|there| there.interface))
        .filter(|index| ![LOOPBACK, container.index].contains(index))
        .collect();
    if others.is_empty() {
        return Ok(false);
    }
    let ours: BTreeSet<u32> = route::all_ours(pod).await?.into_iter().map(|route| route.interface).collect();
    Ok(!others.is_subset(&ours))
}

/// Refuses an address by which the node reaches a live pod of another VLAN: it can have one of the two on the
/// link.
pub async fn check_free(
    node: &Conn,
    device: &Link,
    routes: &HostRoutes,
) -> std::result::Result<(), CniError> {
    let elsewhere: Vec<&HostRoute> =
        routes.there.iter().filter(|route| route.interface != device.index).collect();
    if elsewhere.is_empty() {
        return Ok(());
    }
    let links = link::all(node).await?;
    for route in elsewhere {
        let is_its = |link: &&Link| is_attachment(link) && metric_of(&link.name) == Some(route.metric);
        if let Some(veth) = links.iter().find(is_its) {
            let by = links.iter().find(|link| link.index == route.interface).map_or("", |link| &link.name);
            return Err(CniError::new(
                code::ADDRESS_UNAVAILABLE,
                format!(
                    "hostAccess: the node reaches {} as the pod behind {} on {by}, so it cannot reach this one: \
                     set \"hostAccess\": false in one of the two networks, or give them different subnets",
                    route.address, veth.name
                ),
            ));
        }
    }
    Ok(())
}

/// Both ends of an attachment's veth, and the node's device beside them.
#[derive(Clone, Copy, Debug)]
pub struct VethPair<'a> {
    /// The node's own device on the pods' network.
    pub device: &'a Link,
    /// The veth's end in the node.
    pub host: &'a Link,
    /// The veth's end in the pod.
    pub container: &'a Link,
    /// The attachment's metric.
    pub metric: u32,
}

/// Installs the routes and neighbour entries: in the pod each of the node's addresses on the link, in the
/// node each of the pod's, and behind which MACs.
pub async fn install(
    node: &Conn,
    pod: &Pod,
    veth: &VethPair<'_>,
    routes: &HostRoutes,
    record: &Record,
    undo: &mut UndoLog<'_>,
) -> std::result::Result<(), CniError> {
    let (Some(node_mac), Some(pod_mac)) = (veth.device.mac, veth.container.mac) else { return Ok(()) };
    if routes.to_pod.is_empty() {
        return Ok(());
    }
    log::debug!("host access: {routes:?}");
    let inside = veth.container.index;
    let on_link = |ip: &IpAddr| [neigh::permanent(inside, *ip, node_mac), route::on_link(inside, *ip)];
    let mut of_pod: Vec<Request> = routes.to_node.iter().flat_map(on_link).collect();
    of_pod.extend(routes.services.iter().map(|(net, node)| route::through_node(inside, *net, *node)));
    pod.batch.send(&of_pod)?;
    if routes.to_pod.iter().any(|(pod, _)| pod.is_ipv6()) {
        let now = link::by_index(node, veth.device.index).await?;
        if now.is_none_or(|device| device.disable_ipv6 != Some(0)) {
            InterfaceSysctls::ipv6().write(&veth.device.name, "disable_ipv6", "0")?;
        }
    }
    let (interface, metric) = (veth.device.index, veth.metric);
    let mut of_node = Vec::new();
    let mut installed = Vec::new();
    for (address, source) in &routes.to_pod {
        let to_pod = HostRoute { address: *address, interface, metric };
        of_node.extend([
            // Another attachment's, which is gone: it held this address before.
            route::removal_of_any(*address),
            // Before the neighbour entry, for one without a route is a dead pod's: see `OwnRoutes`.
            route::to_pod(&to_pod, *source),
            neigh::permanent(interface, *address, pod_mac),
        ]);
        installed.push(to_pod);
    }
    let name = veth.host.name.clone();
    undo.push(format!("host routes to {name}"), async move {
        let deleted = delete_record(&name);
        remove(&installed)?;
        deleted.outcome
    });
    records::write_record(record, veth, routes)?;
    Ok(Batch::open()?.send(&of_node)?)
}
