//! Listens to the networks of the pods: one socket on each uplink, in a task of its own. What is heard is
//! kept for as long as there is no gap. A gap is a frame that the kernel dropped, a link that was down, or
//! the time before the start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cni_conf::cni::args::PodName;
use cni_conf::cni::mac::MacAddr;
use cni_conf::range::RangeSet;
use kernel::listen::{Frame, Heard, Listener, Message};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use vlan_bridge::ports::RecordedPort;
use vlan_bridge::watched::Watched;
use vlan_bridge_ipam::ahead::{Listened, uptime};

use crate::overheard::{Overheard, Place};

/// The pause before a link that is down is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The most addresses that are remembered for an uplink. One more counts as a gap.
const MOST: usize = 4096;
/// The frames that are read before an ear answers whether there was a gap. More of them means that it does
/// not keep up.
const MOST_QUEUED: usize = 4096;

/// Another machine uses the address of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The bridge's port that it was heard on.
    pub(crate) uplink: String,
    /// The VLAN of its tag.
    pub(crate) vlan: Option<u16>,
    /// The pod's address.
    pub(crate) address: IpAddr,
    /// The pod's MAC.
    pub(crate) pod: MacAddr,
    /// The other machine's MAC.
    pub(crate) other: MacAddr,
    /// The pod's name, if the runtime told it.
    pub(crate) name: Option<PodName>,
}

/// A pod that is listened for.
#[derive(Clone, Debug)]
struct KnownPod {
    mac: MacAddr,
    name: Option<PodName>,
}

/// A listening task. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ear {
    index: u32,
    shared: Arc<Mutex<Shared>>,
    asked: Arc<Notify>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// It was asked whether there was a gap, and has not answered yet.
    is_asked: bool,
    /// Since when there is no gap, in tenths of a second since the boot. None while the link is down.
    since: Option<u32>,
    /// Until when that is known.
    until: u32,
    /// When `since` was, to tell the time without another system call.
    begun: Option<Instant>,
    /// When each address was last heard to be used, or probed for.
    uses: BTreeMap<Place, u32>,
    /// The ranges whose addresses are remembered.
    ranges: Vec<RangeSet>,
    pods: BTreeMap<Place, KnownPod>,
    overheard: Overheard,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All ears, by the name of the uplink.
#[derive(Debug)]
pub(crate) struct Ears {
    ears: BTreeMap<String, Ear>,
    conflicts: Sender<Conflict>,
    /// An ear has answered.
    answered: Arc<Notify>,
}

impl Ears {
    /// Without any yet. Conflicts are sent there. Those that it has no room for are lost, and heard again.
    pub(crate) fn new(conflicts: Sender<Conflict>) -> Ears {
        Ears { ears: BTreeMap::new(), conflicts, answered: Arc::default() }
    }

    /// Asks each ear whether there was a gap. A carrier that was lost is back by then, or is missing still:
    /// an ear need not look in between, because the kernel announces what comes back.
    pub(crate) fn ask(&self) {
        for ear in self.ears.values() {
            lock(&ear.shared).is_asked = true;
            ear.asked.notify_one();
        }
    }

    /// Waits until all have answered. Nothing is lost if the future is dropped.
    pub(crate) async fn answered(&self) {
        let is_open = |ear: &Ear| {
            let shared = lock(&ear.shared);
            shared.is_asked && shared.since.is_some()
        };
        while self.ears.values().any(is_open) {
            self.answered.notified().await;
        }
    }

    /// Listens where there are networks to listen to. Ears that stay have no gap.
    pub(crate) fn follow(&mut self, watched: &Watched) {
        let uplinks = || {
            watched.bridges.iter().flat_map(|known| known.uplinks.iter().map(move |uplink| (known, uplink)))
        };
        let is_used = |name: &str| watched.networks.iter().any(|network| network.uplink == name);
        // A task ends if its socket cannot be opened. It is tried again.
        self.ears.retain(|name, ear| {
            !ear.task.is_finished()
                && is_used(name)
                && uplinks().any(|(_, uplink)| uplink.port.index == ear.index && uplink.port.name == *name)
        });
        for (bridge, uplink) in uplinks().filter(|(_, uplink)| is_used(&uplink.port.name)) {
            let (name, index) = (&uplink.port.name, uplink.port.index);
            let begin = || Ear::begin(name, index, self.conflicts.clone(), Arc::clone(&self.answered));
            let ear = self.ears.entry(name.clone()).or_insert_with(begin);
            let mut shared = lock(&ear.shared);
            let of_uplink = || watched.networks.iter().filter(|network| network.uplink == *name);
            let places = of_uplink().flat_map(|of| of.gateways.iter().map(|gateway| (of.vlan, *gateway)));
            shared.overheard.follow(of_uplink().map(|of| of.vlan).collect(), &places.collect());
            let addresses = of_uplink().filter_map(|network| network.addresses.as_ref());
            shared.ranges = addresses.flat_map(|addresses| addresses.ranges.iter().cloned()).collect();
            let known = |pod: &RecordedPort| KnownPod { mac: pod.mac, name: pod.pod.clone() };
            let pods = bridge
                .pods
                .iter()
                .flat_map(|pod| pod.addresses.iter().map(move |address| ((pod.vlan, *address), known(pod))));
            shared.pods = pods.collect();
        }
    }

    /// Counts a failover as a gap: frames may have been lost while no member was active.
    pub(crate) fn gap(&self, uplink: &str) {
        if let Some(ear) = self.ears.get(uplink) {
            lock(&ear.shared).gap();
        }
    }

    /// Counts a gap on all uplinks: announcements were lost, one of which may have been of a failover.
    pub(crate) fn gap_of_all(&self) {
        self.ears.values().for_each(|ear| lock(&ear.shared).gap());
    }

    /// What each ear has overheard since the last call, by the uplink.
    pub(crate) fn overheard(&self) -> Vec<(String, Overheard)> {
        self.ears.iter().map(|(uplink, ear)| (uplink.clone(), lock(&ear.shared).overheard.take())).collect()
    }

    /// What was heard on an uplink in a VLAN. None if it is not listened to without a gap.
    pub(crate) fn listened(&self, uplink: &str, vlan: Option<u16>) -> Option<Listened> {
        let shared = lock(&self.ears.get(uplink)?.shared);
        let uses = shared.uses.iter().filter(|((heard, _), _)| *heard == vlan);
        let uses = uses.map(|((_, address), heard)| (*address, *heard)).collect();
        Some(Listened { since: shared.since?, until: shared.until, uses })
    }
}

impl Ear {
    fn begin(uplink: &str, index: u32, conflicts: Sender<Conflict>, answered: Arc<Notify>) -> Ear {
        let (shared, asked) = (Arc::default(), Arc::default());
        let task = Task {
            uplink: uplink.to_owned(),
            shared: Arc::clone(&shared),
            asked: Arc::clone(&asked),
            answered,
            conflicts,
        };
        Ear { index, shared, asked, task: tokio::spawn(task.listen(index)) }
    }
}

/// What a listening task has.
struct Task {
    uplink: String,
    shared: Arc<Mutex<Shared>>,
    asked: Arc<Notify>,
    answered: Arc<Notify>,
    conflicts: Sender<Conflict>,
}

impl Task {
    /// Ends if the link is gone. A link that comes back has another index, and gets another ear.
    async fn listen(self, index: u32) {
        while let Ok(mut listener) = Listener::open(index) {
            lock(&self.shared).gap();
            // Only an error, and a link that is down, end this.
            let _ = self.hear(&mut listener).await;
            lock(&self.shared).end();
            self.answered.notify_one();
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn hear(&self, listener: &mut Listener) -> std::io::Result<()> {
        let mut dropped = listener.dropped()?;
        let mut queued = 0;
        loop {
            let heard = tokio::select! {
                // First, so that the answer follows what was in the queue.
                biased;
                heard = listener.next(), if queued < MOST_QUEUED => heard?,
                () = self.asked.notified() => {
                    let now = listener.dropped()?;
                    // A link without a carrier is up, but brings nothing.
                    let has_carrier = kernel::has_carrier(&self.uplink)? == Some(true);
                    lock(&self.shared).answer(now == dropped && queued < MOST_QUEUED && has_carrier);
                    self.answered.notify_one();
                    (dropped, queued) = (now, 0);
                    continue;
                }
            };
            let Heard::Frame(frame) = heard else { return Ok(()) };
            let mut shared = lock(&self.shared);
            queued = if shared.is_asked { queued + 1 } else { 0 };
            if let Some(conflict) = shared.note(&frame, &self.uplink) {
                // Without room it is lost, and heard again.
                let _ = self.conflicts.try_send(conflict);
            }
        }
    }
}

impl Shared {
    /// Begins to listen after a gap.
    fn gap(&mut self) {
        self.begin(uptime());
    }

    /// The link is down. A question that was not answered is no longer open.
    fn end(&mut self) {
        (self.since, self.is_asked) = (None, false);
    }

    /// Notes until when there was no gap.
    fn answer(&mut self, is_without_gap: bool) {
        self.is_asked = false;
        if is_without_gap { self.until = uptime() } else { self.gap() }
    }

    fn begin(&mut self, now: u32) {
        self.since = Some(now);
        self.until = now;
        self.begun = Some(Instant::now());
        self.uses.clear();
    }

    /// The time since the boot in tenths of a second, rounded up.
    fn now(&self) -> u32 {
        let elapsed = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let tenths = u32::try_from(elapsed.as_millis() / 100 + 1).unwrap_or(u32::MAX);
        self.since.unwrap_or(self.until).saturating_add(tenths)
    }

    /// Notes who uses an address, or probes for it. Returns a conflict with a pod.
    fn note(&mut self, frame: &Frame, uplink: &str) -> Option<Conflict> {
        self.overheard.note(frame);
        let Claim { address, other, is_used } = claim(frame)?;
        let place = (frame.vlan.filter(|vlan| *vlan != 0), address);
        if let Some(pod) = self.pods.get(&place) {
            // The pod itself answers a probe.
            let is_conflict = is_used && pod.mac != other;
            let (uplink, vlan) = (uplink.to_owned(), place.0);
            let KnownPod { mac: pod, name } = pod.clone();
            return is_conflict.then_some(Conflict { uplink, vlan, address, pod, other, name });
        }
        if self.ranges.iter().any(|set| set.range_of(address).is_some()) {
            if self.uses.len() >= MOST && !self.uses.contains_key(&place) {
                self.gap();
            }
            let now = self.now();
            self.uses.insert(place, now);
        }
        None
    }
}

/// What a frame says of an address.
struct Claim {
    address: IpAddr,
    /// The sender's MAC.
    other: MacAddr,
    /// The sender uses the address. Otherwise it probes for the address, and may use it a moment later.
    is_used: bool,
}

/// The claim of a frame. Frames of this node and its pods do not count.
fn claim(frame: &Frame) -> Option<Claim> {
    if frame.own {
        return None;
    }
    let (address, other, is_used): (IpAddr, MacAddr, bool) = match frame.message {
        Message::Arp { mac, target, probe: true, .. } => (target.into(), mac, false),
        Message::Arp { mac, sender, .. } if !sender.is_unspecified() => (sender.into(), mac, true),
        Message::Solicitation { mac, sender: Some(sender), .. } => (sender.into(), mac, true),
        Message::Solicitation { mac, sender: None, target } => (target.into(), mac, false),
        Message::Advertisement { mac, address } => (address.into(), mac, true),
        _ => return None,
    };
    Some(Claim { address, other, is_used })
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cni_conf::range::Range;

    use super::*;

    const POD: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn arp(sender: [u8; 4], vlan: Option<u16>, own: bool, probe: bool) -> Frame {
        let message = Message::Arp {
            request: true,
            mac: OTHER,
            sender: sender.into(),
            target: [10, 0, 0, 1].into(),
            probe,
        };
        Frame { own, vlan, from: OTHER, message }
    }

    fn shared() -> Shared {
        let pod = KnownPod { mac: POD, name: PodName::parse("shop/web-0") };
        let mut shared =
            Shared { pods: BTreeMap::from([((None, [10, 0, 0, 5].into()), pod)]), ..Shared::default() };
        shared.begin(100);
        shared
    }

    #[test]
    fn another_machine_with_a_pods_address_is_a_conflict_in_its_vlan_alone() {
        let mut shared = shared();
        let conflict = shared.note(&arp([10, 0, 0, 5], None, false, false), "bond0.136").unwrap();
        assert_eq!((conflict.pod, conflict.other), (POD, OTHER));
        assert_eq!(conflict.name, PodName::parse("shop/web-0"));
        assert_eq!(shared.note(&arp([10, 0, 0, 5], Some(7), false, false), "bond0"), None);
        assert_eq!(shared.note(&arp([10, 0, 0, 5], None, true, false), "bond0.136"), None);
        assert_eq!(shared.note(&arp([0, 0, 0, 0], None, false, true), "bond0.136"), None);
        assert_eq!(shared.note(&arp([10, 0, 0, 6], None, false, false), "bond0.136"), None);
    }

    #[test]
    fn an_answer_shows_until_when_there_was_no_gap() {
        let mut shared = Shared { is_asked: true, ..shared() };
        let (first, last) = ([10, 0, 0, 1].into(), [10, 0, 0, 254].into());
        let subnet = "10.0.0.0/24".parse().unwrap();
        let range =
            Range { subnet, slice: None, first, last, gateway: None, exclude: Vec::new(), home: None };
        shared.ranges = vec![RangeSet(vec![range])];
        shared.note(&arp([10, 0, 0, 6], None, false, false), "bond0.136");
        shared.answer(true);
        assert!(!shared.is_asked && shared.since == Some(100) && shared.until > 100);
        assert_eq!(shared.uses.len(), 1);
        shared.answer(false);
        assert!(shared.since > Some(100) && shared.uses.is_empty());
    }

    #[test]
    fn addresses_outside_the_ranges_are_not_remembered() {
        let mut shared = shared();
        shared.note(&arp([10, 9, 9, 9], None, false, false), "bond0.136");
        assert!(shared.uses.is_empty());
    }
}
