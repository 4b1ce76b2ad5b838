//! Finds missing host routes, for CHECK and doctor.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::{AddResult, Route};
use cni_conf::host_access::HostAccess;
use cni_conf::network::Network;
use kernel::link::{HostRoute, Link};
use kernel::{Conn, Result, link, neigh, route};

use super::{HostRoutes, host_routes};
use crate::plan::check;
use crate::plan::host_access as plan;
use crate::ports;

/// Checks that the routes that ADD installed still exist. If the node got an address after ADD, a log line
/// says that only pods attached from now on have a route to it.
pub async fn check(
    node: &Conn,
    pod: &Conn,
    network: &Network,
    previous: &AddResult,
    seen: &check::Attached,
) -> std::result::Result<(), CniError> {
    let failed = |why: String| CniError::new(code::CHECK_FAILED, why);
    let (Some(wanted), Some(container)) = (&network.host_access, &seen.container) else { return Ok(()) };
    if seen.host.as_ref().is_some_and(|host| !wanted.asked_for && ports::has_no_host_routes(&host.name)) {
        return Ok(());
    }
    let name = network.node_device();
    let device =
        link::by_name(node, &name).await?.ok_or_else(|| failed(format!("interface {name} is gone")))?;
    let pods: Vec<IpAddr> =
        check::own_addresses(previous, &container.name).map(|ip| ip.address.addr()).collect();
    let routes = host_routes(node, wanted, &device, &pods).await?;
    let observed = observe(node, pod, &device, container, &routes).await?;
    let is_routed = |to: IpAddr| check::is_routed(&Route::to(to.into(), None), container, seen);
    for (net, node) in &routes.services {
        if !check::is_routed(&Route::to(*net, Some(*node)), container, seen) {
            return Err(failed(format!("route {net} via the node's {node} is gone from the container")));
        }
    }
    for address in plan::compare(&observed, &device, container, is_routed).map_err(failed)? {
        log::warn!(
            "the node got address {address} after this pod was attached: only pods attached from now on reach it directly"
        );
    }
    Ok(())
}

/// A missing route or neighbour entry from the node to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The pod's address.
    pub address: IpAddr,
    /// The node's source address for it.
    pub source: IpAddr,
    /// True: the route is missing. False: the neighbour entry is missing.
    pub is_route: bool,
}

/// Finds missing routes and neighbour entries on the node for a pod with this metric and these addresses.
/// Does not need the pod's namespace.
pub async fn missing(
    node: &Conn,
    wanted: &HostAccess,
    device: &Link,
    metric: u32,
    pods: &[IpAddr],
) -> Result<Vec<Missing>> {
    let routes = host_routes(node, wanted, device, pods).await?;
    let mut missing = Vec::new();
    for (address, source) in routes.to_pod {
        let leads = |route: &HostRoute| {
            route.address == address && route.interface == device.index && route.metric == metric
        };
        if !routes.existing.iter().any(leads) {
            missing.push(Missing { address, source, is_route: true });
        }
        if neigh::permanent_mac(node, device.index, address).await?.is_none() {
            missing.push(Missing { address, source, is_route: false });
        }
    }
    Ok(missing)
}

async fn observe(
    node: &Conn,
    pod: &Conn,
    device: &Link,
    container: &Link,
    routes: &HostRoutes,
) -> Result<plan::ObservedRoutes> {
    let mut observed = plan::ObservedRoutes::default();
    for (address, _) in &routes.to_pod {
        let route = route::ours_to(node, *address).await?;
        observed.to_pod.push(plan::ToPod {
            address: *address,
            interface: route.map(|route| route.interface),
            mac: neigh::permanent_mac(node, device.index, *address).await?,
        });
    }
    for address in &routes.to_node {
        let mac = neigh::permanent_mac(pod, container.index, *address).await?;
        observed.to_node.push(plan::ToNode { address: *address, mac });
    }
    Ok(observed)
}
