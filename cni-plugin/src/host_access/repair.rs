//! After the bridge was down: with it the kernel takes the node's routes and neighbour entries to the pods, and does not give them
//! back. The next call of any pod does, for all live ones, from the records.
//!
//! Each record is written before its ways are taken and removed before they go, so nobody puts back what somebody else is taking away.

use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use ipnet::IpNet;

use super::{Ends, Ways};
use crate::link::{HostRoute, Link};
use crate::lock::RecordLock;
use crate::net::{Batch, Conn, NetError, Request, link, neigh, route};
use crate::record::{Record, Records};

/// Writes down what [`super::give`] is about to give the node.
pub(super) fn remember(record: &Record, ends: &Ends<'_>, ways: &Ways) -> Result<(), CniError> {
    let is_reached = |net: &&IpNet| ways.to_pod.iter().any(|(pod, _)| *pod == net.addr());
    let of_ways = Record {
        addresses: record.addresses.iter().filter(is_reached).copied().collect(),
        masquerade: false,
        ports: Vec::new(),
        sources: ways.sources(),
        guard: None,
        ..record.clone()
    };
    let _lock = RecordLock::shared()?;
    Records::of_ways_by(&ends.device.name)?.write(&of_ways)
}

/// Forgets the ways to the pod behind this veth. To be called before they are taken away.
pub fn forget(veth: &str) -> Result<(), CniError> {
    for (_, records) in Records::of_ways()? {
        {
            let _lock = RecordLock::shared()?;
            records.remove(veth)?;
        }
        if records.is_empty() {
            let _lock = RecordLock::alone()?;
            records.end();
            Records::end_of_ways()?;
        }
    }
    Ok(())
}

/// What is recorded of the ways to the pod behind this veth.
pub fn recall(veth: &str) -> Result<Vec<Record>, CniError> {
    Ok(Records::of_ways()?.iter().filter_map(|(_, records)| records.read(veth)).collect())
}

/// What recorded ways have left: a route of ours, or the kernel took it and left a neighbour entry, which is ours if it has the pod's
/// MAC. Entries of kernels before 4.20 do not say whose they are.
pub(super) async fn left_of(node: &Conn, recorded: &[Record]) -> Result<Vec<HostRoute>, NetError> {
    let mut left = Vec::new();
    for record in recorded {
        let Some(device) = link::by_name(node, &record.device).await? else { continue };
        let metric = record.attachment().metric();
        for address in record.addresses.iter().map(IpNet::addr) {
            let is_its = match route::ours_to(node, address).await? {
                Some(route) => route.metric == metric,
                None => neigh::permanent_mac(node, device.index, address).await? == record.mac,
            };
            if is_its {
                left.push(HostRoute { address, interface: device.index, metric });
            }
        }
    }
    Ok(left)
}

/// The veths of all pods whose ways are recorded.
pub fn remembered() -> Result<Vec<String>, CniError> {
    Ok(Records::of_ways()?.iter().flat_map(|(_, records)| records.veths()).collect())
}

/// Forgets those of `remembered` whose veth is not among `links`, which must have been listed later: an ADD makes the veth first. Takes
/// away what is left of their ways.
pub async fn forget_stale(node: &Conn, remembered: &[String], links: &[&Link]) -> Result<(), CniError> {
    let is_there = |veth: &String| links.iter().any(|link| link.name == *veth);
    for veth in remembered.iter().filter(|veth| !is_there(veth)) {
        let recorded = recall(veth)?;
        forget(veth)?;
        super::remove(&left_of(node, &recorded).await?)?;
    }
    Ok(())
}

/// Puts back what the node has lost of its ways to pods, of whichever network. The pod that is called for goes on without.
pub async fn mend(node: &Conn) {
    let mended = async {
        for (device, records) in Records::of_ways()? {
            if is_lost(node, &records).await? {
                put_back(node, &device, &records).await?;
            }
        }
        Ok(())
    };
    if let Err(e) = mended.await {
        let e: CniError = e;
        log::error!("the node's ways to its pods were not put back: {e}");
    }
}

/// Who has taken a device down has taken the ways of all pods behind it, so one pod stands for all.
async fn is_lost(node: &Conn, records: &Records) -> Result<bool, CniError> {
    let Some(record) = records.any() else { return Ok(false) };
    for address in &record.addresses {
        if route::ours_to(node, address.addr()).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn put_back(node: &Conn, device: &str, records: &Records) -> Result<(), CniError> {
    let _lock = RecordLock::alone()?;
    // The record that was looked at may be a dead pod's, or somebody else was quicker.
    let live = records.live(node, None).await?;
    let device = link::by_name(node, device).await?.filter(|device| device.up);
    let Some(device) = device else { return Ok(()) };
    if !is_lost(node, records).await? {
        return Ok(());
    }
    let (mut requests, mut pods) = (Vec::new(), 0);
    for record in &live {
        if is_behind(node, record, &device).await? {
            requests.extend(of_node(record, &device));
            pods += 1;
        }
    }
    Batch::open()?.send(&requests)?;
    if pods > 0 {
        log::warn!("the node's routes to {pods} pods behind {} were gone and are back", device.name);
    }
    Ok(())
}

/// Whether the pod's port is still in the bridge. What goes to one that has lost its bridge, which is then another, would leave by the uplink.
async fn is_behind(node: &Conn, record: &Record, device: &Link) -> Result<bool, CniError> {
    let bridge = match &record.bridge {
        Some(bridge) => link::by_name(node, bridge).await?.map(|bridge| bridge.index),
        None => Some(device.index),
    };
    let host = link::by_name(node, &record.attachment().host_interface()).await?;
    Ok(bridge.is_some() && host.and_then(|host| host.master) == bridge)
}

/// As [`super::give`] has it.
fn of_node(record: &Record, device: &Link) -> Vec<Request> {
    let Some(mac) = record.mac else { return Vec::new() };
    let metric = record.attachment().metric();
    let way = |address: IpAddr| {
        let source = record.sources.iter().find(|source| source.is_ipv4() == address.is_ipv4())?;
        let to_pod = HostRoute { address, interface: device.index, metric };
        Some([route::to_pod(&to_pod, *source), neigh::permanent(device.index, address, mac)])
    };
    record.addresses.iter().filter_map(|net| way(net.addr())).flatten().collect()
}
