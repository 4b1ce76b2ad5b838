//! Announces pods on an uplink: a gratuitous ARP or an unsolicited neighbour advertisement for each address,
//! from the pod's MAC, though the pod is silent (RFC 5227 section 2.3, RFC 4861 section 7.2.6). So the
//! switches learn where the pod is now.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use cni_conf::cni::error::CniError;
use cni_conf::cni::mac::MacAddr;
use kernel::PacketInterface;
use kernel::announce::FrameAnnouncer;
use tokio::time::{Instant, sleep_until};
use vlan_bridge::ports::{self, RecordedPort};

use crate::ear::Conflict;
use crate::failover::Failover;
use crate::figures::Figures;
use crate::report::Report;

/// A switch may learn only when its own port forwards, and a frame may be lost. So all addresses are
/// announced three times.
const ROUNDS: u32 = 3;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(700);
/// At most 500 frames a second: ten each 20 ms.
const BURST: usize = 10;
const PACE: Duration = Duration::from_millis(20);

/// A frame to send.
#[derive(Clone, Debug)]
struct Announced {
    uplink: String,
    mac: MacAddr,
    address: IpAddr,
    tag: Option<u16>,
    not_before: Instant,
}

/// The frames to send, in order.
#[derive(Debug)]
pub(crate) struct Announcer {
    queue: VecDeque<Announced>,
    sockets: BTreeMap<String, FrameAnnouncer>,
    next: Option<Instant>,
    figures: Figures,
}

impl Announcer {
    /// Has nothing to send yet. What is sent is counted.
    pub(crate) fn new(figures: Figures) -> Announcer {
        Announcer { queue: VecDeque::new(), sockets: BTreeMap::new(), next: None, figures }
    }

    /// Queues the addresses of the bridge's pods. Those that are still queued for this uplink begin again.
    /// Returns what to tell.
    pub(crate) fn begin(&mut self, failover: &Failover) -> Report {
        match self.queue_all(failover) {
            Ok(addresses) => Report::announces(failover, addresses),
            Err(error) => Report::not_announced(&error),
        }
    }

    fn queue_all(&mut self, failover: &Failover) -> Result<usize, CniError> {
        let now = Instant::now();
        self.queue.retain(|announced| announced.uplink != failover.uplink);
        let recorded = ports::recorded()?.into_iter().filter(|(bridge, _)| *bridge == failover.bridge);
        let pods: Vec<RecordedPort> = recorded.flat_map(|(_, pods)| pods).collect();
        for round in 0..ROUNDS {
            let not_before = now + BETWEEN_ROUNDS * round;
            for pod in &pods {
                self.queue.extend(pod.addresses.iter().map(|address| Announced {
                    uplink: failover.uplink.clone(),
                    mac: pod.mac,
                    address: *address,
                    tag: pod.vlan,
                    not_before,
                }));
            }
        }
        self.queue.make_contiguous().sort_by_key(|announced| announced.not_before);
        Ok(pods.iter().map(|pod| pod.addresses.len()).sum())
    }

    /// Queues one announcement that defends a pod's address (RFC 5227 section 2.4 (b)), unless the pod is
    /// gone by now: it may have moved to the other machine. Returns what to tell.
    pub(crate) fn defend(&mut self, conflict: &Conflict) -> Option<Report> {
        let Conflict { uplink, vlan, address, pod, .. } = conflict.clone();
        let is_meant = |known: &RecordedPort| known.mac == pod && known.addresses.contains(&address);
        match ports::recorded() {
            Ok(recorded) => {
                if recorded.iter().flat_map(|(_, pods)| pods).any(is_meant) {
                    let not_before = Instant::now();
                    self.queue.push_front(Announced { uplink, mac: pod, address, tag: vlan, not_before });
                }
                None
            }
            Err(error) => Some(Report::not_announced(&error)),
        }
    }

    /// Sends the next frames when they are due. Waits for ever if there are none. Nothing is lost if the
    /// future is dropped. Returns what to tell.
    pub(crate) async fn turn(&mut self) -> Option<Report> {
        let Some(first) = self.queue.front() else { return std::future::pending().await };
        sleep_until(self.next.map_or(first.not_before, |next| next.max(first.not_before))).await;
        let now = Instant::now();
        self.next = Some(now + PACE);
        let mut outcome = Ok(());
        for _ in 0..BURST {
            if self.queue.front().is_none_or(|announced| announced.not_before > now) {
                break;
            }
            let Some(announced) = self.queue.pop_front() else { break };
            outcome = outcome.and(self.send(&announced));
        }
        if self.queue.is_empty() {
            self.sockets.clear();
        }
        outcome.err().map(|error| Report::not_announced(&error))
    }

    fn send(&mut self, announced: &Announced) -> io::Result<()> {
        let Announced { uplink, mac, address, tag, .. } = announced;
        if !self.sockets.contains_key(uplink) {
            // An uplink that has vanished meanwhile has nobody to tell.
            let Some(interface) = PacketInterface::find(uplink)? else { return Ok(()) };
            self.sockets.insert(uplink.clone(), FrameAnnouncer::open(interface)?);
        }
        let sent = self.sockets.get(uplink).map_or(Ok(()), |socket| socket.announce(*mac, *address, *tag));
        if sent.is_ok() {
            self.figures.announced();
        } else {
            // The uplink may have been made again under another index. What is queued for it has nowhere to
            // go.
            self.sockets.remove(uplink);
            self.queue.retain(|queued| queued.uplink != *uplink);
        }
        sent
    }
}
