//! Finds and removes routes and neighbour entries to pods.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use kernel::link::{HostRoute, Link};
use kernel::{Conn, NetlinkRequest, Result, link, neigh, route};

use super::records::{Deleted, delete_record, leftovers_of};
use crate::ownership::{Attachment, is_attachment, metric_of};
use crate::record::HostRoutesRecord;

/// Removes an attachment's host routes, after their record. `device` is their interface. None means that
/// the attachment can have none.
pub async fn detach(
    node: &Conn,
    attachment: &Attachment<'_>,
    device: Option<&str>,
    previous: &AddResult,
) -> std::result::Result<(), CniError> {
    let Deleted { records, outcome } = delete_record(&attachment.host_interface());
    // If the result has the addresses, the records are not needed.
    let recorded = if previous.ips.is_empty() { records } else { Vec::new() };
    let Some(device) = device else { return outcome };
    let routes = routes_of(node, device, attachment.metric(), previous, &recorded).await;
    outcome.and(routes.and_then(|routes| remove(node, &routes)).map_err(CniError::from))
}

/// The node's routes and neighbour entries to pods.
#[derive(Debug)]
pub struct OwnRoutes {
    neighbours: Vec<(u32, IpAddr)>,
    routes: Vec<HostRoute>,
}

impl OwnRoutes {
    /// Lists neighbours before routes: if an ADD installs both meanwhile, only the route is seen.
    pub async fn look(node: &Conn) -> Result<OwnRoutes> {
        Ok(OwnRoutes { neighbours: neigh::all_ours(node).await?, routes: route::all_ours(node).await? })
    }

    /// Neighbour entries without a route. The kernel removes a route together with the node's address that
    /// is its source.
    fn strays(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        let leads = |(interface, address): (u32, IpAddr)| {
            move |route: &HostRoute| route.interface == interface && route.address == address
        };
        self.neighbours.iter().copied().filter(move |entry| !self.routes.iter().any(leads(*entry)))
    }
}

/// The node's routes to the pod of an attachment. They are found by the addresses in the result of ADD,
/// else by the records, else by the metric. When an address of the node is removed, the kernel removes the
/// routes with that source address. Then `device` is the interface of the neighbour entry that is still
/// there.
async fn routes_of(
    node: &Conn,
    device: &str,
    metric: u32,
    previous: &AddResult,
    recorded: &[Arc<HostRoutesRecord>],
) -> Result<Vec<HostRoute>> {
    if previous.ips.is_empty() && !recorded.is_empty() {
        return leftovers_of(node, recorded).await;
    }
    if previous.ips.is_empty() {
        let ours = OwnRoutes::look(node).await?;
        let strays =
            ours.strays().map(|(interface, address)| HostRoute { address, interface, metric }).collect();
        let of_pod = ours.routes.iter().filter(|route| route.metric == metric).copied();
        return Ok([strays, of_pod.collect::<Vec<_>>()].concat());
    }
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    for address in previous.ips.iter().map(|ip| ip.address.addr()) {
        match route::ours_to(node, address).await? {
            Some(route) if route.metric == metric => found.push(route),
            Some(_) => {}
            None => gone.push(address),
        }
    }
    if !gone.is_empty()
        && let Some(device) = link::by_name(node, device).await?
    {
        let of = |address| HostRoute { address, interface: device.index, metric };
        found.extend(gone.into_iter().map(of));
    }
    Ok(found)
}

/// Removes routes to pods, each with its neighbour entry.
pub fn remove(node: &Conn, routes: &[HostRoute]) -> Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let requests: Vec<NetlinkRequest> = routes
        .iter()
        .flat_map(|found| [route::removal(found), neigh::removal(found.interface, found.address)])
        .collect();
    node.batch(&requests)
}

/// Removes routes to pods whose veth is not among `links`, and neighbour entries without a route. The
/// caller must list the links after the routes, because ADD makes the veth first.
pub fn remove_stale(node: &Conn, ours: &OwnRoutes, links: &[&Link]) -> Result<()> {
    let attached = links.iter().filter(|link| is_attachment(link));
    let alive: BTreeSet<u32> = attached.filter_map(|link| metric_of(&link.name)).collect();
    let stale: Vec<HostRoute> =
        ours.routes.iter().filter(|route| !alive.contains(&route.metric)).copied().collect();
    for route in &stale {
        log::info!("removing the route to {}: its pod is gone", route.address);
    }
    remove(node, &stale)?;
    let strays: Vec<NetlinkRequest> =
        ours.strays().map(|(interface, address)| neigh::removal(interface, address)).collect();
    if strays.is_empty() { Ok(()) } else { node.batch(&strays) }
}

/// Deletes the records in `recorded` whose veth is not among `links`, and removes the leftovers of their
/// routes. The caller must list the links after the records, because ADD makes the veth first.
pub async fn delete_stale_records(
    node: &Conn,
    recorded: &[String],
    links: &[&Link],
) -> std::result::Result<(), CniError> {
    let is_there = |veth: &String| links.iter().any(|link| link.name == *veth);
    for veth in recorded.iter().filter(|veth| !is_there(veth)) {
        let Deleted { records: recorded, outcome } = delete_record(veth);
        outcome?;
        remove(node, &leftovers_of(node, &recorded).await?)?;
    }
    Ok(())
}
