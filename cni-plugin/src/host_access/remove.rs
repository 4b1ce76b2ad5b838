//! What is removed of routes and neighbour entries to pods, and how it is found.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use kernel::link::{HostRoute, Link};
use kernel::{Batch, Conn, Request, Result, link, neigh, route};

use super::records::{Deleted, delete_record, left_of};
use crate::ownership::{Attachment, is_attachment, metric_of};
use crate::record::Record;

/// Removes an attachment's host routes, and their record first. `device` is where they are; none if there can
/// be none.
pub async fn detach(
    node: &Conn,
    attachment: &Attachment<'_>,
    device: Option<&str>,
    previous: &AddResult,
) -> std::result::Result<(), CniError> {
    let Deleted { records, outcome } = delete_record(&attachment.host_interface());
    // Where the result tells the addresses, they need not be looked up.
    let recorded = if previous.ips.is_empty() { records } else { Vec::new() };
    let Some(device) = device else { return outcome };
    let routes = routes_of(node, device, attachment.metric(), previous, &recorded).await;
    outcome.and(routes.and_then(|routes| remove(&routes)).map_err(CniError::from))
}

/// What the node has of routes to pods.
#[derive(Debug)]
pub struct OwnRoutes {
    neighbours: Vec<(u32, IpAddr)>,
    routes: Vec<HostRoute>,
}

impl OwnRoutes {
    /// Neighbours first: a route that comes meanwhile is seen with an entry that is not.
    pub async fn look(node: &Conn) -> Result<OwnRoutes> {
        Ok(OwnRoutes { neighbours: neigh::all_ours(node).await?, routes: route::all_ours(node).await? })
    }

    /// Neighbour entries that are left of routes which the kernel took with an address of the node.
    fn strays(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        let leads = |(interface, address): (u32, IpAddr)| {
            move |route: &HostRoute| route.interface == interface && route.address == address
        };
        self.neighbours.iter().copied().filter(move |entry| !self.routes.iter().any(leads(*entry)))
    }
}

/// The node's routes to the pod of an attachment: by the addresses that its ADD reported, else by what is
/// recorded, else by its metric alone. With an address of the node, the kernel takes the routes that it is
/// the source of: then `device` says where one was, whose neighbour entry is still there.
async fn routes_of(
    node: &Conn,
    device: &str,
    metric: u32,
    previous: &AddResult,
    recorded: &[Record],
) -> Result<Vec<HostRoute>> {
    if previous.ips.is_empty() && !recorded.is_empty() {
        return left_of(node, recorded).await;
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

/// Takes routes to pods away, each with its neighbour entry.
pub fn remove(routes: &[HostRoute]) -> Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let requests: Vec<Request> = routes
        .iter()
        .flat_map(|found| [route::removal(found), neigh::removal(found.interface, found.address)])
        .collect();
    Batch::open()?.send(&requests)
}

/// Takes away the routes to pods whose veth is not among `links`, and neighbour entries without a route. The
/// links must have been listed after the routes: an ADD makes the veth first.
pub fn remove_stale(ours: &OwnRoutes, links: &[&Link]) -> Result<()> {
    let attached = links.iter().filter(|link| is_attachment(link));
    let alive: BTreeSet<u32> = attached.filter_map(|link| metric_of(&link.name)).collect();
    let stale: Vec<HostRoute> =
        ours.routes.iter().filter(|route| !alive.contains(&route.metric)).copied().collect();
    for route in &stale {
        log::info!("removing the route to {}, a pod that is gone", route.address);
    }
    remove(&stale)?;
    let strays: Vec<Request> =
        ours.strays().map(|(interface, address)| neigh::removal(interface, address)).collect();
    if strays.is_empty() { Ok(()) } else { Batch::open()?.send(&strays) }
}

/// Deletes the records of those of `recorded` whose veth is not among `links`, and removes what is left of
/// their routes. The links must have been listed after the records: an ADD makes the veth first.
pub async fn delete_stale_records(
    node: &Conn,
    recorded: &[String],
    links: &[&Link],
) -> std::result::Result<(), CniError> {
    let is_there = |veth: &String| links.iter().any(|link| link.name == *veth);
    for veth in recorded.iter().filter(|veth| !is_there(veth)) {
        let Deleted { records: recorded, outcome } = delete_record(veth);
        outcome?;
        remove(&left_of(node, &recorded).await?)?;
    }
    Ok(())
}
