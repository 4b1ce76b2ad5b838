//! Host routes (`hostAccess`): the routes between pods and their own node. This module observes and
//! installs them; `plan::host_access` plans them.
//!
//! The node's routes to pods use the bridge, so they outlive a veth. Their metric identifies the
//! attachment: it finds the routes when nothing else of the attachment is left.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::family::Family;
use cni_conf::host_access::HostAccess;
use ipnet::IpNet;
use kernel::link::{HostRoute, Link};
use kernel::sysctl::InterfaceSysctls;
use kernel::{Conn, NetlinkRequest, Result, addr, link, neigh, route};

use crate::ownership::{is_attachment, metric_of};
use crate::plan::host_access::{self as plan, NodeAddresses};
use crate::pod::Pod;
use crate::record::PodInterface;
use crate::undo::UndoLog;

mod check;
mod follow;
mod records;
mod remove;
mod repair;

pub use check::{Missing, check, missing};
pub use follow::follow;
pub use records::{delete_record, recorded_veths};
pub use remove::{OwnRoutes, delete_stale_records, detach, remove, remove_stale};
pub use repair::{repair, repair_and_log};

/// The routes between a pod and its node.
#[derive(Clone, Debug)]
pub struct HostRoutes {
    /// The node's addresses to which the pod has an on-link route.
    pub to_node: Vec<IpAddr>,
    /// Each address of the pod to which the node has an on-link route, with the node's source address.
    pub to_pod: Vec<(IpAddr, IpAddr)>,
    /// Destinations that the pod reaches through the node, each with the node's address that is the
    /// gateway.
    pub services: Vec<(IpNet, IpAddr)>,
    /// Existing host routes to the pod's addresses: those of this pod, or of pods that have or had the same
    /// address.
    pub existing: Vec<HostRoute>,
}

impl HostRoutes {
    /// The node's source address of each family for packets to the pod.
    pub fn sources(&self) -> Vec<IpAddr> {
        let mut sources: Vec<IpAddr> = self.to_pod.iter().map(|(_, source)| *source).collect();
        sources.dedup_by_key(|source| source.is_ipv4());
        sources
    }
}

/// Determines the host routes of a pod with these addresses. `device` is the node's own interface on the
/// pods' network.
pub async fn host_routes(
    node: &Conn,
    wanted: &HostAccess,
    device: &Link,
    pods: &[IpAddr],
) -> Result<HostRoutes> {
    let Observed { seen, default_sources, existing } = observe(node, pods).await?;
    let to_node = plan::addresses(wanted, device, &seen);
    for entry in plan::unmatched(wanted, &to_node, &seen) {
        log::warn!("hostAddresses: the node has no address for {entry}");
    }
    let to_pod = pods.iter().zip(default_sources).filter_map(|(pod, default_source)| {
        plan::source(*pod, &to_node, default_source).map(|source| (*pod, source))
    });
    let to_pod: Vec<(IpAddr, IpAddr)> = to_pod.collect();
    let through = |net: &IpNet| {
        let of_family = |(pod, _): &&(IpAddr, IpAddr)| Family::of(*pod) == Family::of_net(net);
        to_pod.iter().find(of_family).map(|(_, source)| (*net, *source))
    };
    let services: Vec<(IpNet, IpAddr)> = wanted.services.iter().filter_map(through).collect();
    let is_routed = |net: &IpNet| services.iter().any(|(routed, _)| routed == net);
    let of_pods = |net: &IpNet| pods.iter().any(|pod| Family::of(*pod) == Family::of_net(net));
    for net in wanted.services.iter().filter(|net| of_pods(net) && !is_routed(net)) {
        log::warn!(
            "serviceCIDRs: no route to {net} through the node: the node has no address of that family that pods can reach"
        );
    }
    Ok(HostRoutes { services, to_pod, to_node, existing })
}

/// The node, as [`plan`] needs it to choose addresses for a pod.
struct Observed {
    seen: NodeAddresses,
    /// For each address of the pod the node's source without a host route.
    default_sources: Vec<Option<IpAddr>>,
    /// As in [`HostRoutes`].
    existing: Vec<HostRoute>,
}

async fn observe(node: &Conn, pods: &[IpAddr]) -> Result<Observed> {
    let mut seen = NodeAddresses::default();
    let (mut default_sources, mut existing) = (Vec::new(), Vec::new());
    for pod in pods {
        let ours = route::ours_to(node, *pod).await?;
        let found = default_path(node, *pod, ours.is_some()).await?;
        existing.extend(ours);
        seen.default_interfaces.extend(found.map(|(interface, _)| interface));
        default_sources.push(found.map(|(_, source)| source));
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
    Ok(Observed { seen, default_sources, existing })
}

/// The interface and source address that the node would use for the pod without a host route. An existing
/// host route has its source from an earlier call of this function; the interface is then that of the
/// default route.
async fn default_path(node: &Conn, pod: IpAddr, is_ours: bool) -> Result<Option<(u32, IpAddr)>> {
    let Some((interface, source)) = route::lookup(node, pod).await? else { return Ok(None) };
    let default = if is_ours { route::default_interface(node, Family::of(pod)).await? } else { None };
    Ok(Some((default.unwrap_or(interface), source)))
}

/// Whether the pod is also on a network of another plugin: another interface of the pod has an address or a
/// default route, and no host route. The node may reach such a pod over that network. An answer over this
/// network would not get back to the sender.
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

/// Refuses an address by which the node already reaches a live pod of another VLAN. The node can have only
/// one of the two on-link.
pub async fn check_free(
    node: &Conn,
    device: &Link,
    routes: &HostRoutes,
) -> std::result::Result<(), CniError> {
    let elsewhere: Vec<&HostRoute> =
        routes.existing.iter().filter(|route| route.interface != device.index).collect();
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
                    "hostAccess: the node already reaches {} behind {} on {by}, so it cannot reach this pod: \
                     set \"hostAccess\": false in one of the two networks, or give them different subnets",
                    route.address, veth.name
                ),
            ));
        }
    }
    Ok(())
}

/// Both ends of an attachment's veth, and the node's interface on the pods' network.
#[derive(Clone, Copy, Debug)]
pub struct VethPair<'a> {
    /// The node's own interface on the pods' network.
    pub device: &'a Link,
    /// The veth's node end.
    pub host: &'a Link,
    /// The veth's pod end.
    pub container: &'a Link,
    /// The attachment's metric.
    pub metric: u32,
}

/// Installs routes and permanent neighbour entries: in the pod for the node's addresses, on the node for
/// the pod's addresses.
pub async fn install<'a>(
    node: &'a Conn,
    pod: &Pod,
    veth: &VethPair<'_>,
    routes: &HostRoutes,
    recorded: &PodInterface,
    undo: &mut UndoLog<'a>,
) -> std::result::Result<(), CniError> {
    let (Some(node_mac), Some(pod_mac)) = (veth.device.mac, veth.container.mac) else { return Ok(()) };
    if routes.to_pod.is_empty() {
        return Ok(());
    }
    log::debug!("host access: {routes:?}");
    let inside = veth.container.index;
    let on_link_route = |ip: &IpAddr| [neigh::permanent(inside, *ip, node_mac), route::on_link(inside, *ip)];
    let mut of_pod: Vec<NetlinkRequest> = routes.to_node.iter().flat_map(on_link_route).collect();
    of_pod.extend(routes.services.iter().map(|(net, node)| route::through_node(inside, *net, *node)));
    pod.conn.batch(&of_pod)?;
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
            // Removes the route of a former attachment that had this address.
            route::removal_of_any(*address),
            // The route comes before the neighbour entry: an entry without a route counts as a dead pod's,
            // see `OwnRoutes`.
            route::to_pod(&to_pod, *source),
            neigh::permanent(interface, *address, pod_mac),
        ]);
        installed.push(to_pod);
    }
    let name = veth.host.name.clone();
    undo.push(format!("host routes to {name}"), async move {
        let deleted = delete_record(&name);
        remove(node, &installed)?;
        deleted.outcome
    });
    records::write_record(recorded, veth, routes)?;
    Ok(node.batch(&of_node)?)
}
