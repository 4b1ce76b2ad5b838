//! The MTU of running pods and of their bridge, after that of the uplink has changed. Where the list fixes
//! no `mtu`, an ADD takes the uplink's. A bridge drops a larger frame and sends no message, so after a
//! lower MTU connections hang.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cni_conf::cni::error::{CniError, code};
use cni_conf::family::Family;
use cni_conf::network::Network;
use kernel::link::{Kind, Link};
use kernel::{Conn, NetError, addr, link, route};

use super::attached::{PortRecord, by_bridge};
use crate::inside::Inside;
use crate::lock::{NodeLock, RecordLock};
use crate::ownership::{Attachment, Progress, attachment_of, is_ours};
use crate::record::Records;
use crate::repairs::{Repairs, Subject};

/// The smallest MTU with which an interface keeps its IPv6 addresses and routes (RFC 8200 section 5).
const LEAST_FOR_IPV6: u32 = 1280;

/// Lets the MTU of all pods and bridges follow that of their uplinks. `seen` are the node's links, if the
/// pass knows them already.
pub async fn follow_mtu(
    node: &Conn,
    seen: Option<Vec<Link>>,
    repairs: &mut Repairs<'_>,
) -> Result<(), CniError> {
    let bridges = by_bridge()?;
    if bridges.is_empty() {
        return Ok(());
    }
    let links = match seen {
        Some(links) => links,
        None => link::all(node).await?,
    };
    for (name, records) in bridges {
        let Some(bridge) = links.iter().find(|link| link.name == name) else { continue };
        let segment = Segment { node, links: &links, bridge, records: &records };
        let outcome = segment.follow(repairs).await;
        repairs.note(Subject::Mtu(name), outcome);
    }
    Ok(())
}

/// A bridge with the ports of pods.
struct Segment<'a> {
    node: &'a Conn,
    links: &'a [Link],
    bridge: &'a Link,
    records: &'a Records<PortRecord>,
}

/// What a network's interfaces have to follow.
struct Followed<'a> {
    uplink: &'a Link,
    /// The node's interface in the pods' VLAN.
    device: String,
}

/// The MTU that pods have, and the uplink's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MtuChange {
    uplink: String,
    from: u32,
    to: u32,
}

impl MtuChange {
    fn of_pods(&self, pods: usize) -> String {
        format!("{self}, and {pods} pods have {}", self.from)
    }
}

impl fmt::Display for MtuChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has MTU {}", self.uplink, self.to)
    }
}

impl Segment<'_> {
    async fn follow(&self, repairs: &mut Repairs<'_>) -> Result<(), CniError> {
        let subject = Subject::Mtu(self.bridge.name.clone());
        let followed = self.followed();
        let mut pods: BTreeMap<MtuChange, Vec<&str>> = BTreeMap::new();
        for host in self.ports() {
            let network = attachment_of(host).and_then(|attachment| followed.get(attachment.network));
            let Some(uplink) = network.map(|network| network.uplink).filter(|uplink| uplink.mtu != host.mtu)
            else {
                continue;
            };
            // An earlier list may have fixed it.
            if self.records.read(&host.name).is_some_and(|record| has_no_mtu(&record)) {
                let change = MtuChange { uplink: uplink.name.clone(), from: host.mtu, to: uplink.mtu };
                pods.entry(change).or_default().push(&host.name);
            }
        }
        let lagging: usize = pods.values().map(Vec::len).sum();
        let mut following = 0;
        for (change, veths) in pods {
            if !repairs.permits(&subject, &[change.of_pods(veths.len())]) {
                continue;
            }
            let mut outcomes = Vec::new();
            for veth in veths {
                outcomes.push(self.follow_in(veth, change.to).await);
            }
            following += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            repairs.note_pods(&subject, outcomes, |pods| change.of_pods(pods));
        }
        self.follow_with_devices(&followed, following == lagging, repairs).await
    }

    /// The live ports of the records' pods.
    fn ports(&self) -> impl Iterator<Item = &Link> {
        let recorded = BTreeSet::from_iter(self.records.names());
        let bridge = self.bridge.index;
        self.links.iter().filter(move |link| link.master == Some(bridge) && recorded.contains(&link.name))
    }

    /// The networks whose pods follow their uplink. One record shows each.
    fn followed(&self) -> BTreeMap<&str, Followed<'_>> {
        let (mut seen, mut followed) = (BTreeSet::new(), BTreeMap::new());
        for host in self.ports() {
            let Some(Attachment { network: name, .. }) = attachment_of(host) else { continue };
            if seen.contains(name) {
                continue;
            }
            let Some(record) = self.records.read(&host.name) else { continue };
            seen.insert(name);
            let Ok(network) = record.network() else { continue };
            let Network { uplink: Some(uplink), mtu: None, .. } = &network else { continue };
            let port = self.links.iter().find(|link| link.name == uplink.port_name());
            if let Some(uplink) = port.filter(|port| port.master == Some(self.bridge.index)) {
                followed.insert(name, Followed { uplink, device: network.node_device() });
            }
        }
        followed
    }

    /// Changes both ends of a veth. The pod's comes first: if it cannot be changed, the node's stays as well,
    /// and frames between the pods of this node still pass. False if the pod has gone meanwhile.
    async fn follow_in(&self, veth: &str, mtu: u32) -> Result<bool, CniError> {
        let _lock = RecordLock::exclusive()?;
        let Some(record) = self.records.read(veth) else { return Ok(false) };
        let host = link::by_name(self.node, veth).await?;
        let is_ready = |host: &Link| Attachment::of(&record.request).progress(host) == Progress::Ready;
        let Some(host) = host.filter(is_ready) else { return Ok(false) };
        let has_v6 = record.result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
        if mtu < LEAST_FOR_IPV6 && has_v6 {
            let why = format!(
                "with less than {LEAST_FOR_IPV6}, they would lose their IPv6 addresses, so they keep {}: {}",
                host.mtu,
                Dropped(mtu)
            );
            return Err(CniError::new(code::UNSUPPORTED_FIELD, why));
        }
        let Inside { conn, container } = Inside::open(self.node, &host, record.netns()?).await?;
        // A pod may have chosen a smaller one.
        let follows = container.mtu > mtu || container.mtu == host.mtu;
        if follows && container.mtu != mtu {
            set(&conn, &container, mtu).await?;
        }
        set(self.node, &host, mtu).await?;
        Ok(true)
    }

    /// Changes a bridge that an ADD has made, and the node's interfaces in its VLANs. They are not raised
    /// while a pod has less: the node would send it frames that are too large.
    async fn follow_with_devices(
        &self,
        followed: &BTreeMap<&str, Followed<'_>>,
        pods_follow: bool,
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        let subject = Subject::Mtu(self.bridge.name.clone());
        let Some(mtu) = followed.values().map(|network| network.uplink.mtu).min() else { return Ok(()) };
        let fixed_below = self.ports().any(|host| {
            host.mtu < mtu && attachment_of(host).is_none_or(|of| !followed.contains_key(of.network))
        });
        let names = followed.values().map(|network| network.device.as_str());
        let names: BTreeSet<&str> = names.filter(|name| *name != self.bridge.name).collect();
        let sides = self.links.iter().filter(|link| names.contains(link.name.as_str()));
        // A VLAN's interface has no more than its bridge.
        for device in std::iter::once(self.bridge).chain(sides).filter(|device| is_ours(device)) {
            let is_due = device.mtu > mtu || device.mtu < mtu && pods_follow && !fixed_below;
            let what = vec![format!("{} has {}, and the uplink {mtu}", device.name, device.mtu)];
            if is_due && self.would_lose_ipv6(device, mtu).await? {
                repairs.note(subject.clone(), Err(too_small_for_ipv6(device, mtu)));
            } else if is_due && repairs.permits(&subject, &what) {
                let _lock = NodeLock::acquire()?;
                // Until somebody sets it, the kernel lets a bridge follow its ports.
                let now = link::by_index(self.node, device.index).await?;
                if now.is_some_and(|now| now.mtu != mtu) {
                    set(self.node, device, mtu).await?;
                    repairs.restored(&subject, what);
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel would remove IPv6 addresses or host routes from a device with this MTU, or from an
    /// interface in one of its VLANs, which has no more. They do not come back with a larger MTU.
    async fn would_lose_ipv6(&self, device: &Link, mtu: u32) -> Result<bool, CniError> {
        if mtu >= LEAST_FOR_IPV6 || device.mtu < LEAST_FOR_IPV6 {
            return Ok(false);
        }
        let is_above =
            |link: &&Link| matches!(link.kind, Kind::Vlan { .. }) && link.parent == Some(device.index);
        let above = self.links.iter().filter(is_above).map(|link| link.index);
        let affected: BTreeSet<u32> = above.chain([device.index]).collect();
        let held = addr::of_family(self.node, Family::V6).await?;
        let routes = route::all_ours(self.node).await?;
        Ok(held.iter().any(|address| affected.contains(&address.interface))
            || routes.iter().any(|route| route.address.is_ipv6() && affected.contains(&route.interface)))
    }
}

/// What is said of a device that does not follow.
fn too_small_for_ipv6(device: &Link, mtu: u32) -> CniError {
    let Link { name, mtu: own, .. } = device;
    let why = format!(
        "{name} has {own}, and the uplink {mtu}: with less than {LEAST_FOR_IPV6}, {name} would lose its IPv6 \
         addresses and routes, so it keeps {own}: {}",
        Dropped(mtu)
    );
    CniError::new(code::UNSUPPORTED_FIELD, why)
}

/// What a bridge does with a packet that is larger than the MTU of the port that it leaves by
/// (`br_dev_queue_push_xmit`).
struct Dropped(u32);

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bridge drops packets larger than {} to the uplink, and nobody is told", self.0)
    }
}

fn has_no_mtu(record: &PortRecord) -> bool {
    record.network().is_ok_and(|network| network.mtu.is_none())
}

async fn set(conn: &Conn, device: &Link, mtu: u32) -> Result<(), NetError> {
    let change = link::Change { mtu: Some(mtu), ..Default::default() };
    link::change(conn, device.index, &change, || format!("ip link set {} mtu {mtu}", device.name)).await
}
