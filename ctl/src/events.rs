//! The agent's reports as events of Kubernetes: of the Node, or of the pod that a report concerns. Nothing
//! waits for the API server: events are sent by a thread of their own, and what it has no room for is lost.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Error, Result};
use cni_conf::cni::args::PodName;
use cni_skel::timestamp;
use serde_json::{Value, json};
use vlan_bridge_agent::{Companion, Reason, Report, Severity};

use crate::kubernetes::Api;
use crate::output;

/// At most one event of a kind is sent in this time. A kind is a reason and the object that it concerns.
const INTERVAL: Duration = Duration::from_secs(600);
/// How many events may wait for the API server.
const ROOM: usize = 64;
/// How long an event is sent again if the API server does not answer, or asks for patience. What broke the
/// node may have cut it off from the API server too: after a flush of all rules, kube-proxy takes a while to
/// make its own again.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(10);
/// The longest message that the API server takes, in bytes.
const LONGEST: usize = 1024;
/// The namespace of events of Nodes, which have none themselves.
const OF_NODES: &str = "default";

/// What the agent's reports go into.
pub(crate) struct EventQueue {
    kinds: Kinds,
    queue: SyncSender<Event>,
}

impl EventQueue {
    /// The queue of a node, and the work that sends its events. Outside a cluster they go nowhere.
    pub(crate) fn of_node(node: String) -> (EventQueue, Companion) {
        let (queue, events) = sync_channel(ROOM);
        (EventQueue { kinds: Kinds::default(), queue }, Box::new(move || send_all(&node, &events)))
    }

    /// Adds a report, if it is important and not the second of its kind.
    pub(crate) fn add(&mut self, report: &Report) {
        let Some(event) = self.kinds.event(report, Instant::now()) else { return };
        // Without room it is lost, and the next one of its kind is sent. The journal has it.
        if let Err(TrySendError::Full(unsent)) = self.queue.try_send(event) {
            self.kinds.sent.remove(&(unsent.reason, unsent.pod));
        }
    }
}

/// An event to send.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    reason: Reason,
    is_warning: bool,
    pod: Option<PodName>,
    message: String,
    /// How many reports of the kind there were since the last event of it, this one included.
    count: u32,
    at: Duration,
}

/// When an event of each kind was sent last.
#[derive(Debug, Default)]
struct Kinds {
    sent: BTreeMap<(Reason, Option<PodName>), (Instant, u32)>,
}

impl Kinds {
    /// The event of a report. None if it is not important, or if one of its kind was sent a short time ago.
    fn event(&mut self, report: &Report, now: Instant) -> Option<Event> {
        let is_over = report.reason == Reason::ConflictOver;
        if report.severity == Severity::Notice && !is_over {
            return None;
        }
        let is_recent = |sent: Instant| now.saturating_duration_since(sent) < INTERVAL;
        let key = (report.reason, report.pod.clone());
        let kind = self.sent.get_mut(&key);
        if let Some((_, unsent)) = kind.filter(|(sent, _)| is_recent(*sent)) {
            *unsent += 1;
            return None;
        }
        let unsent = self.sent.insert(key, (now, 0)).map_or(0, |(_, unsent)| unsent);
        // The kinds of pods that are gone.
        self.sent.retain(|_, (sent, _)| is_recent(*sent));
        Some(Event {
            reason: report.reason,
            is_warning: !is_over,
            pod: report.pod.clone(),
            message: report.text.clone(),
            count: unsent + 1,
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        })
    }
}

impl Event {
    fn namespace(&self) -> &str {
        self.pod.as_ref().map_or(OF_NODES, |pod| &pod.namespace)
    }

    /// An Event of `v1`.
    fn to_json(&self, node: &str) -> Value {
        let object = match &self.pod {
            Some(PodName { namespace, name, uid }) => {
                json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid})
            }
            // `kubectl describe node` looks for the Node's name in the UID, as kubelet writes it.
            None => json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}),
        };
        let named = self.pod.as_ref().map_or(node, |pod| &pod.name);
        let at = timestamp::rfc3339(self.at);
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"generateName": format!("{named}."), "namespace": self.namespace()},
            "involvedObject": object,
            "reason": self.reason.as_str(),
            "message": shortened(&self.message),
            "type": if self.is_warning { "Warning" } else { "Normal" },
            "source": {"component": "vlan-bridge-agent", "host": node},
            "firstTimestamp": at, "lastTimestamp": at, "count": self.count,
        })
    }
}

fn shortened(text: &str) -> &str {
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
    if text.len() > LONGEST { &text[..end.unwrap_or(0)] } else { text }
}

/// Sends events until the queue is closed. Outside a cluster it only takes them out.
fn send_all(node: &str, events: &Receiver<Event>) {
    let mut reported = String::new();
    for event in events {
        match send(node, &event) {
            Ok(()) => reported.clear(),
            Err(error) => {
                // Report each error once.
                let text = format!("vlan-bridgectl agent: an event was not sent: {error:#}");
                if text != reported {
                    output::report(&text);
                    reported = text;
                }
            }
        }
    }
}

fn send(node: &str, event: &Event) -> Result<()> {
    // Again for each event: kubelet replaces the token from time to time.
    let attempt = || match Api::find()? {
        Some(api) => api.create_event(event.namespace(), &event.to_json(node)),
        None => Ok(Ok(())),
    };
    let began = Instant::now();
    loop {
        match attempt() {
            // Those that wait may be taken.
            Ok(answer) => return answer.map_err(Error::msg),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(severity: Severity, reason: Reason, pod: Option<&str>) -> Report {
        Report { severity, reason, pod: pod.and_then(PodName::parse), text: "text".into() }
    }

    #[test]
    fn one_of_a_kind_is_sent_in_ten_minutes_with_the_count_of_all() {
        let (mut kinds, start) = (Kinds::default(), Instant::now());
        let restored = report(Severity::Warning, Reason::Restored, None);
        let mut counts = |report: &Report, seconds| {
            kinds.event(report, start + Duration::from_secs(seconds)).map(|event| event.count)
        };
        assert_eq!(counts(&restored, 0), Some(1));
        assert_eq!(counts(&restored, 1), None);
        assert_eq!(counts(&restored, 599), None);
        assert_eq!(counts(&report(Severity::Error, Reason::LeftAlone, None), 2), Some(1));
        assert_eq!(counts(&report(Severity::Error, Reason::AddressConflict, Some("shop/a")), 3), Some(1));
        assert_eq!(counts(&report(Severity::Error, Reason::AddressConflict, Some("shop/b")), 3), Some(1));
        assert_eq!(counts(&report(Severity::Notice, Reason::Looked, None), 4), None);
        assert_eq!(counts(&restored, 600), Some(3));
        assert_eq!(counts(&restored, 2000), Some(1));
        assert_eq!(kinds.sent.len(), 1);
    }

    #[test]
    fn an_event_without_room_does_not_silence_the_next_of_its_kind() {
        let (queue, events) = sync_channel(1);
        let mut queue = EventQueue { kinds: Kinds::default(), queue };
        queue.add(&report(Severity::Warning, Reason::Restored, None));
        queue.add(&report(Severity::Error, Reason::LeftAlone, None));
        assert_eq!(events.try_iter().count(), 1);
        queue.add(&report(Severity::Error, Reason::LeftAlone, None));
        queue.add(&report(Severity::Warning, Reason::Restored, None));
        assert_eq!(events.try_iter().map(|event| event.reason).collect::<Vec<_>>(), [Reason::LeftAlone]);
    }

    #[test]
    fn an_event_is_of_the_node_or_of_the_pod() {
        let event = |pod| {
            Kinds::default().event(&report(Severity::Error, Reason::AddressConflict, pod), Instant::now())
        };
        let of_node = event(None).unwrap().to_json("n1");
        assert_eq!(of_node["involvedObject"]["uid"], "n1");
        assert_eq!(of_node["metadata"]["namespace"], "default");
        let of_pod = event(Some("shop/web-0")).unwrap().to_json("n1");
        assert_eq!(of_pod["involvedObject"]["name"], "web-0");
        assert_eq!(of_pod["metadata"]["namespace"], "shop");
        assert_eq!(of_pod["reason"], "AddressConflict");
    }

    #[test]
    fn a_long_message_ends_at_a_character() {
        let long = "é".repeat(LONGEST);
        assert_eq!(shortened(&long).len(), LONGEST);
        assert_eq!(shortened(&format!("a{long}")).len(), LONGEST - 1);
        assert_eq!(shortened("a"), "a");
    }
}
