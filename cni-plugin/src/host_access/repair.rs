//! Restores host routes. The kernel removes the node's routes to pods when the bridge goes down or the node
//! loses an address, and does not restore them. The next call for any pod restores the routes of all live
//! pods from the records.
//!
//! A record is written before its routes are installed and deleted before they are removed. So repair does
//! not restore routes that another call is removing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cni_conf::cni::error::CniError;
use cni_conf::family::Family;
use ipnet::IpNet;
use kernel::link::{HostRoute, Link};
use kernel::{Conn, NetError, NetlinkRequest, addr, link, neigh, route};

use super::follow::wanted_by;
use super::{Observed, observe};
use crate::lock::RecordLock;
use crate::ownership::{Progress, metric_of};
use crate::plan::host_access as plan;
use crate::record::{HostRoutesRecord, Records};
use crate::repairs::{Repairs, Subject};

/// Restores missing routes from the node to pods of any network. Errors are logged and do not fail the
/// call.
pub async fn repair_and_log(node: &Conn) {
    let mut repairs = Repairs::of_everything();
    if let Err(e) = repair(node, false, &mut repairs).await {
        log::error!("could not restore the node's routes to its pods: {e}");
    }
    repairs.log_failures();
}

/// Restores missing routes. With `neighbours`, neighbour entries are checked as well. They disappear without
/// their routes only if someone flushes them.
pub async fn repair(node: &Conn, neighbours: bool, repairs: &mut Repairs<'_>) -> Result<(), CniError> {
    for (name, records) in Records::<HostRoutesRecord>::by_device()? {
        let Some(device) = link::by_name(node, &name).await?.filter(|device| device.up) else { continue };
        let subject = Subject::HostRoutes(name);
        let missing = lost(node, &records, &device, neighbours).await?;
        if missing.is_empty() || !repairs.permits(&subject, &[describe(missing.len())]) {
            continue;
        }
        let _lock = RecordLock::exclusive()?;
        // Another call may have restored them, or a record may belong to a dead pod.
        let (mut requests, mut pods) = (Vec::new(), 0);
        for (veth, addresses) in lost(node, &records, &device, neighbours).await? {
            let Some(record) = records.read(&veth) else { continue };
            if let Some(record) = with_sources(node, record, &records).await?
                && is_behind(node, &record, &device).await?
            {
                requests.extend(of_node(&record, &addresses, &device));
                pods += 1;
            }
        }
        node.batch(&requests)?;
        if pods > 0 {
            repairs.restored(&subject, vec![describe(pods)]);
        }
    }
    Ok(())
}

fn describe(pods: usize) -> String {
    format!("the node lacked routes or neighbour entries to {pods} pods")
}

/// The recorded veths with missing routes, and the addresses without a route. One list of the device's
/// routes shows them, because each route has the metric of its attachment. Only the records of attachments
/// with missing routes are read, and one more for the address families.
async fn lost(
    node: &Conn,
    records: &Records<HostRoutesRecord>,
    device: &Link,
    neighbours: bool,
) -> Result<Vec<(String, Vec<IpAddr>)>, CniError> {
    let routes = route::ours_by(node, device.index).await?;
    let (has_v4, has_v6) = records.any().map_or((false, false), |record| {
        let has = |family| record.pod.addresses.iter().any(|net| Family::of_net(net) == family);
        (has(Family::V4), has(Family::V6))
    });
    let of_family = |family| -> BTreeSet<u32> {
        routes.iter().filter(|route| Family::of(route.address) == family).map(|route| route.metric).collect()
    };
    let known = if neighbours { neigh::permanent_macs(node, device.index).await? } else { BTreeMap::new() };
    let (v4, v6) = (of_family(Family::V4), of_family(Family::V6));
    let mut lost = Vec::new();
    for veth in records.veths() {
        let Some(metric) = metric_of(&veth) else { continue };
        // If a family has no routes at all, that one record says whether it should have some.
        let lacks = |present: &BTreeSet<u32>, expected: bool| {
            !present.contains(&metric) && (expected || !present.is_empty())
        };
        if !(neighbours || lacks(&v4, has_v4) || lacks(&v6, has_v6)) {
            continue;
        }
        let Some(record) = records.read(&veth) else { continue };
        let mut missing = Vec::new();
        for address in record.pod.addresses.iter().map(IpNet::addr) {
            let is_there = routes.iter().any(|route| route.address == address && route.metric == metric);
            if !is_there || neighbours && known.get(&address).copied() != record.pod.mac {
                missing.push(address);
            }
        }
        if !missing.is_empty() && is_alive(node, &record).await? && can_be_reached(node, &record).await? {
            lost.push((veth, missing));
        }
    }
    Ok(lost)
}

/// Whether the pod is alive. DEL removes the record of a dead pod.
async fn is_alive(node: &Conn, record: &HostRoutesRecord) -> Result<bool, NetError> {
    let host = link::by_name(node, &record.pod.attachment().host_interface()).await?;
    Ok(host.is_some_and(|host| record.pod.attachment().progress(&host) != Progress::Foreign))
}

/// Whether the node has a source address for each of the pod's address families. Without one, the routes
/// cannot be restored yet.
async fn can_be_reached(node: &Conn, record: &HostRoutesRecord) -> Result<bool, CniError> {
    Ok(sources(node, record).await?.is_some())
}

/// The record's source addresses. An address that the node no longer has is replaced by the one that an ADD
/// would choose. None if there is no such address.
async fn sources(node: &Conn, record: &HostRoutesRecord) -> Result<Option<Vec<IpAddr>>, CniError> {
    let mut sources = Vec::new();
    for source in &record.sources {
        let of_family =
            record.pod.addresses.iter().map(IpNet::addr).find(|pod| Family::of(*pod) == Family::of(*source));
        let Some(pod) = of_family else { continue };
        let is_there =
            addr::of_family(node, Family::of(*source)).await?.iter().any(|held| held.net.addr() == *source);
        let found = if is_there { Some(*source) } else { another_source(node, record, pod).await? };
        match found {
            Some(source) => sources.push(source),
            None => return Ok(None),
        }
    }
    Ok((!sources.is_empty()).then_some(sources))
}

/// The source that an ADD would choose. Without the pod's configuration, it is the kernel's.
async fn another_source(
    node: &Conn,
    record: &HostRoutesRecord,
    pod: IpAddr,
) -> Result<Option<IpAddr>, CniError> {
    let Some((_, by_default)) = route::lookup(node, pod).await? else { return Ok(None) };
    let device = link::by_name(node, &record.pod.device).await?;
    let wanted = wanted_by(record, &record.pod.attachment().host_interface())?;
    let (Some(device), Some(wanted)) = (device, wanted) else { return Ok(Some(by_default)) };
    let Observed { seen, .. } = observe(node, &[pod]).await?;
    Ok(plan::source(pod, &plan::addresses(&wanted, &device, &seen), Some(by_default)))
}

/// The record with source addresses that the node has. Changed sources are written to the record.
async fn with_sources(
    node: &Conn,
    record: Arc<HostRoutesRecord>,
    records: &Records<HostRoutesRecord>,
) -> Result<Option<Arc<HostRoutesRecord>>, CniError> {
    let Some(sources) = sources(node, &record).await? else { return Ok(None) };
    if record.sources == sources {
        return Ok(Some(record));
    }
    let record = HostRoutesRecord { sources, ..Arc::unwrap_or_clone(record) };
    records.write(&record)?;
    Ok(Some(Arc::new(record)))
}

/// Whether the pod's port is still in the bridge. If it is not, packets to the pod would leave by the
/// uplink: the bridge may be a new one.
async fn is_behind(node: &Conn, record: &HostRoutesRecord, device: &Link) -> Result<bool, CniError> {
    let bridge = match &record.pod.bridge {
        Some(bridge) => link::by_name(node, bridge).await?.map(|bridge| bridge.index),
        None => Some(device.index),
    };
    let host = link::by_name(node, &record.pod.attachment().host_interface()).await?;
    Ok(bridge.is_some() && host.and_then(|host| host.master) == bridge)
}

/// The same routes and neighbour entries that [`super::install`] installs, for these addresses.
fn of_node(record: &HostRoutesRecord, addresses: &[IpAddr], device: &Link) -> Vec<NetlinkRequest> {
    let Some(mac) = record.pod.mac else { return Vec::new() };
    let metric = record.pod.attachment().metric();
    let route_and_neighbour = |address: &IpAddr| {
        let source = record.sources.iter().find(|source| Family::of(**source) == Family::of(*address))?;
        let to_pod = HostRoute { address: *address, interface: device.index, metric };
        Some([route::to_pod(&to_pod, *source), neigh::permanent(device.index, *address, mac)])
    };
    addresses.iter().filter_map(route_and_neighbour).flatten().collect()
}
