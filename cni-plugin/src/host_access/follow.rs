//! The pods' routes to their node, after the node's addresses have changed: an address came, or it is gone
//! and another node may have it by now. The pod's namespace is looked at only then. What a pod has changed
//! by itself stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use cni_conf::cni::error::CniError;
use cni_conf::family::Family;
use cni_conf::host_access::HostAccess;
use ipnet::IpNet;
use kernel::link::{HostRoute, Link};
use kernel::{Conn, NetlinkRequest, addr, link, neigh, route};

use super::{Observed, observe};
use crate::inside::Inside;
use crate::lock::RecordLock;
use crate::ownership::Progress;
use crate::plan::host_access as plan;
use crate::ports;
use crate::record::{HostRoutesRecord, Records};
use crate::repairs::{Repairs, Subject};

/// Lets the routes of all pods to the node's addresses follow these.
pub async fn follow(node: &Conn, repairs: &mut Repairs<'_>) -> Result<(), CniError> {
    let devices = Records::<HostRoutesRecord>::by_device()?;
    if devices.is_empty() {
        return Ok(());
    }
    let mut held = BTreeSet::new();
    for family in Family::BOTH {
        held.extend(addr::of_family(node, family).await?.into_iter().map(|address| address.net.addr()));
    }
    for (name, records) in devices {
        let Some(device) = link::by_name(node, &name).await?.filter(|device| device.up) else { continue };
        let outdated = outdated(node, &records, &device, &held).await?;
        let mut pods: BTreeMap<Moved, Vec<String>> = BTreeMap::new();
        for (veth, moved) in outdated {
            pods.entry(moved).or_default().push(veth);
        }
        let subject = Subject::RoutesToNode(name);
        for (moved, veths) in pods {
            if !repairs.permits(&subject, &[moved.of(veths.len())]) {
                continue;
            }
            let mut outcomes = Vec::new();
            for veth in &veths {
                outcomes.push(follow_in(node, &records, veth, &device, &moved).await);
            }
            repairs.note_pods(&subject, outcomes, |pods| moved.of(pods));
        }
    }
    Ok(())
}

/// The node's addresses that a pod should have routes to, and has none, and those that the node has no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moved {
    came: Vec<IpAddr>,
    gone: Vec<IpAddr>,
}

impl Moved {
    fn of(&self, pods: usize) -> String {
        format!("{self}, and {pods} pods did not follow")
    }

    fn concerns(&self, family: Family) -> bool {
        self.came.iter().chain(&self.gone).any(|address| Family::of(*address) == family)
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed =
            |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        match (&self.came[..], &self.gone[..]) {
            (came, []) => write!(f, "the node has got {}", listed(came)),
            ([], gone) => write!(f, "the node has no longer {}", listed(gone)),
            (came, gone) => write!(f, "the node has got {}, and no longer {}", listed(came), listed(gone)),
        }
    }
}

/// The pods, by their veths, whose routes to the node are no longer those that ADD would install. `held` are
/// the node's addresses.
async fn outdated(
    node: &Conn,
    records: &Records<HostRoutesRecord>,
    device: &Link,
    held: &BTreeSet<IpAddr>,
) -> Result<Vec<(String, Moved)>, CniError> {
    // The pods of a network that have the same families reach the same addresses.
    let mut chosen: BTreeMap<(String, [bool; 2]), Option<Vec<IpAddr>>> = BTreeMap::new();
    let mut outdated = Vec::new();
    for (veth, record) in records.all() {
        // An older version did not note them.
        let Some(known) = &record.node_addresses else { continue };
        let has = |family| record.pod.addresses.iter().any(|net| Family::of_net(net) == family);
        let key = (record.pod.network.clone(), Family::BOTH.map(has));
        if !chosen.contains_key(&key) {
            chosen.insert(key.clone(), choose(node, &record, &veth, device).await?);
        }
        let Some(Some(wanted)) = chosen.get(&key) else { continue };
        // An interface that is down for a moment keeps its addresses, and the pods keep their routes to them.
        let moved = Moved {
            came: wanted.iter().copied().filter(|address| !known.contains(address)).collect(),
            gone: known.iter().copied().filter(|address| !held.contains(address)).collect(),
        };
        if !(moved.came.is_empty() && moved.gone.is_empty()) && finished(node, &record).await?.is_some() {
            outdated.push((veth, moved));
        }
    }
    Ok(outdated)
}

/// The node's addresses to which an ADD of the pod would install routes. None if its configuration is
/// unknown.
async fn choose(
    node: &Conn,
    record: &HostRoutesRecord,
    veth: &str,
    device: &Link,
) -> Result<Option<Vec<IpAddr>>, CniError> {
    let Some(wanted) = wanted_by(record, veth)? else { return Ok(None) };
    let pods: Vec<IpAddr> = record.pod.addresses.iter().map(IpNet::addr).collect();
    let Observed { seen, .. } = observe(node, &pods).await?;
    Ok(Some(plan::addresses(&wanted, device, &seen)))
}

/// What the pod's network says about its routes to the node.
pub(super) fn wanted_by(record: &HostRoutesRecord, veth: &str) -> Result<Option<HostAccess>, CniError> {
    let bridge = record.pod.bridge.as_ref().unwrap_or(&record.pod.device);
    Ok(ports::network_of(bridge, veth)?.and_then(|network| network.host_access))
}

/// The node end of the pod's veth, if its ADD is done.
async fn finished(node: &Conn, record: &HostRoutesRecord) -> Result<Option<Link>, CniError> {
    let attachment = record.pod.attachment();
    let host = link::by_name(node, &attachment.host_interface()).await?;
    Ok(host.filter(|host| attachment.progress(host) == Progress::Ready))
}

/// Changes the routes in one pod. False if the pod has gone meanwhile.
async fn follow_in(
    node: &Conn,
    records: &Records<HostRoutesRecord>,
    veth: &str,
    device: &Link,
    moved: &Moved,
) -> Result<bool, CniError> {
    let _lock = RecordLock::exclusive()?;
    let (Some(record), Some(mac)) = (records.read(veth), device.mac) else { return Ok(false) };
    let Some(host) = finished(node, &record).await? else { return Ok(false) };
    let services = wanted_by(&record, veth)?.map(|wanted| wanted.services).unwrap_or_default();
    let Inside { conn, container } = Inside::open(node, &host, &record.pod.netns).await?;
    let inside = container.index;
    let mut requests: Vec<NetlinkRequest> = Vec::new();
    for address in &moved.came {
        requests.extend([neigh::permanent(inside, *address, mac), route::on_link(inside, *address)]);
    }
    for net in services.iter().filter(|net| moved.concerns(Family::of_net(net))) {
        let source = record.sources.iter().find(|source| Family::of(**source) == Family::of_net(net));
        requests.extend(source.map(|source| route::through_node_instead(inside, *net, *source)));
    }
    for address in &moved.gone {
        let to_node = HostRoute { address: *address, interface: inside, metric: inside };
        requests.extend([route::removal(&to_node), neigh::removal(inside, *address)]);
    }
    conn.batch(&requests)?;
    let mut record = Arc::unwrap_or_clone(record);
    if let Some(known) = &mut record.node_addresses {
        known.retain(|address| !moved.gone.contains(address));
        known.extend(&moved.came);
    }
    records.write(&record)?;
    Ok(true)
}
