//! The checker of histories: given what pods, machines and the VLAN did, it finds addresses that two pods had
//! at a time, and addresses that are held for nobody. Tests record the histories of one VLAN.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::entry::Mac;
use crate::name::Name;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by one clock that never goes back. Events of one moment happened in their order in the history.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// A pod of a node. A pod that is added again after its DEL may have the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pod {
    /// The node.
    pub node: Name,
    /// The pod's name on the node.
    pub id: Name,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// ADD was called.
    AddBegin(Pod),
    /// ADD returned this address. One ADD may return several, each in an event.
    AddOk(Pod, IpAddr),
    /// DEL was called.
    DelBegin(Pod),
    /// DEL succeeded.
    DelOk(Pod),
    /// The pod's ADD or DEL was killed. Nobody knows what it did.
    Kill(Pod),
    /// The machine was switched off. Its pods run no longer, and their addresses are held until it boots.
    Off(Name),
    /// The machine booted. The pods that it had before are gone.
    Boot(Name),
    /// This hardware address was heard to have the address: in an answer or an announcement.
    Arp(IpAddr, Mac),
    /// The node was found to hold this address for the pod.
    Held(Pod, IpAddr),
}

/// A user of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum User {
    /// A pod, from the end of its ADD to the beginning of its DEL.
    Pod(Pod),
    /// A hardware address, from the first time it was heard to the last. Pods of a history therefore need
    /// hardware addresses of their own.
    Mac(Mac),
}

/// An address that two had at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Double {
    /// When the second got it.
    pub from: Duration,
    /// When the first of the two had it no longer. [`Duration::MAX`] if both have it still.
    pub until: Duration,
    /// The address.
    pub addr: IpAddr,
    /// The two.
    pub users: [User; 2],
}

/// An address that is held for a pod that is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leak {
    /// The pod.
    pub pod: Pod,
    /// The address.
    pub addr: IpAddr,
}

/// The time in which somebody certainly used an address: the end is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    from: Duration,
    until: Duration,
    by: User,
}

/// Uses by address. Those of pods and of hardware addresses are apart: each is a witness of its own.
type Uses = BTreeMap<(IpAddr, Witness), Vec<Use>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Witness {
    Calls,
    Arp,
}

/// What is known of a pod.
#[derive(Clone, Debug)]
struct Life {
    /// The call that is under way, or returned last.
    call: Option<Call>,
    /// Whether no address may be held for it.
    gone: bool,
    /// Its addresses, and since when it has them.
    has: BTreeMap<IpAddr, Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Add,
    Del,
}

/// The pods of a history.
#[derive(Debug, Default)]
struct Lives {
    lives: BTreeMap<Pod, Life>,
    uses: Uses,
    leaks: Vec<Leak>,
}

/// The addresses that two had at a time: two pods that were between the end of their ADD and the beginning of
/// their DEL, or two hardware addresses. What a call that was killed did is not certain, so it counts for
/// nothing, but its pod's hardware address may be heard.
pub fn check(events: &[Event]) -> Vec<Double> {
    let mut uses = Lives::of(events).finish();
    let mut heard: BTreeMap<(IpAddr, Mac), (Duration, Duration)> = BTreeMap::new();
    for event in events {
        if let What::Arp(addr, mac) = event.what {
            let (first, last) = heard.entry((addr, mac)).or_insert((event.at, event.at));
            (*first, *last) = (event.at.min(*first), event.at.max(*last));
        }
    }
    for ((addr, mac), (from, last)) in heard {
        let until = last.saturating_add(Duration::from_nanos(1));
        uses.entry((addr, Witness::Arp)).or_default().push(Use { from, until, by: User::Mac(mac) });
    }
    let mut doubles: Vec<Double> =
        uses.into_iter().flat_map(|((addr, _), uses)| overlaps(addr, uses)).collect();
    doubles.sort();
    doubles
}

/// The addresses that were found to be held for pods that were gone by then. A pod is gone after its DEL
/// succeeded, and when its machine has booted.
pub fn leaks(events: &[Event]) -> Vec<Leak> {
    Lives::of(events).leaks
}

/// Each two uses of one address that overlap.
fn overlaps(addr: IpAddr, mut uses: Vec<Use>) -> Vec<Double> {
    uses.sort();
    let (mut doubles, mut active) = (Vec::new(), Vec::<Use>::new());
    for next in uses.into_iter().filter(|one| one.from < one.until) {
        active.retain(|one| one.until > next.from);
        doubles.extend(active.iter().map(|one| Double {
            from: next.from,
            until: one.until.min(next.until),
            addr,
            users: [one.by.clone(), next.by.clone()],
        }));
        active.push(next);
    }
    doubles
}

impl Lives {
    fn of(events: &[Event]) -> Lives {
        let mut order: Vec<&Event> = events.iter().collect();
        order.sort_by_key(|event| event.at);
        let mut lives = Lives::default();
        order.into_iter().for_each(|event| lives.note(event));
        lives
    }

    fn note(&mut self, Event { at, what }: &Event) {
        match what {
            What::AddBegin(pod) => {
                let life = self.life(pod);
                (life.call, life.gone) = (Some(Call::Add), false);
            }
            // An ADD whose pod's DEL was called meanwhile returns an address that nobody uses.
            What::AddOk(pod, addr) if self.life(pod).call == Some(Call::Add) => {
                self.life(pod).has.entry(*addr).or_insert(*at);
            }
            What::DelBegin(pod) => {
                self.end(pod, *at);
                self.life(pod).call = Some(Call::Del);
            }
            What::DelOk(pod) if self.life(pod).call == Some(Call::Del) => self.life(pod).gone = true,
            What::Kill(pod) => self.life(pod).call = None,
            What::Off(node) => self.end_all(node, *at),
            What::Boot(node) => {
                self.end_all(node, *at);
                self.of_node(node).for_each(|(_, life)| life.gone = true);
            }
            What::Held(pod, addr) if self.lives.get(pod).is_none_or(|life| life.gone) => {
                self.leaks.push(Leak { pod: pod.clone(), addr: *addr });
            }
            What::AddOk(..) | What::DelOk(_) | What::Held(..) | What::Arp(..) => {}
        }
    }

    fn life(&mut self, pod: &Pod) -> &mut Life {
        let life = Life { call: None, gone: true, has: BTreeMap::new() };
        self.lives.entry(pod.clone()).or_insert(life)
    }

    fn of_node<'a>(&'a mut self, node: &'a Name) -> impl Iterator<Item = (&'a Pod, &'a mut Life)> {
        self.lives.iter_mut().filter(move |(pod, _)| pod.node == *node)
    }

    /// The pod uses its addresses no longer.
    fn end(&mut self, pod: &Pod, until: Duration) {
        for (addr, from) in std::mem::take(&mut self.life(pod).has) {
            let one = Use { from, until, by: User::Pod(pod.clone()) };
            self.uses.entry((addr, Witness::Calls)).or_default().push(one);
        }
    }

    fn end_all(&mut self, node: &Name, until: Duration) {
        let pods: Vec<Pod> = self.of_node(node).map(|(pod, _)| pod.clone()).collect();
        for pod in pods {
            self.end(&pod, until);
            self.life(&pod).call = None;
        }
    }

    /// The uses, of which those that have no end last for ever.
    fn finish(mut self) -> Uses {
        let pods: Vec<Pod> = self.lives.keys().cloned().collect();
        pods.iter().for_each(|pod| self.end(pod, Duration::MAX));
        self.uses
    }
}

#[cfg(test)]
mod tests;
