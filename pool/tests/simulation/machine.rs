//! One node: its clocks, its files, the plugin's store, and its agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use vlan_bridge_pool::agent::{Agent, Event};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::grants::{Confirmation, Grants, Moment};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Report;
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::water::Usage;

use crate::happening::Happening;

/// How long an address rests before another node may have it.
const REST: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    pub(crate) name: Name,
    pub(crate) boot: u32,
    pub(crate) booted_at: Duration,
    /// How much faster than true time its clocks run, in parts per million.
    pub(crate) drift: i64,
    /// The wall clock's steps so far, in seconds.
    pub(crate) steps: i64,
    pub(crate) on: bool,
    /// Whether it never comes back.
    pub(crate) for_good: bool,
    pub(crate) identity: Identity,
    /// What a power cut leaves of it, if it is not synced.
    pub(crate) synced: Option<Identity>,
    /// The documents that it knows, which store they are from, and since when it knows them.
    pub(crate) documents: Vec<Document>,
    pub(crate) documents_at: (u64, u64),
    pub(crate) documents_since: Duration,
    /// The store that its agent has heard of since it started.
    pub(crate) cluster: Option<u64>,
    pub(crate) networks: Vec<Local>,
    pub(crate) agent: Option<Agent>,
    /// Which of its agents runs. What an earlier one began is dropped.
    pub(crate) life: u64,
    pub(crate) stopped_until: Duration,
    /// What happens to the agent once it is stopped no longer.
    pub(crate) held: Vec<Happening>,
    pub(crate) cut_until: Duration,
    pub(crate) full_until: Duration,
    pub(crate) wakes: BTreeSet<Duration>,
    /// Questions to the store without an answer yet, with what the agent hears if none comes.
    pub(crate) pending: BTreeMap<u64, Event>,
    pub(crate) asked: u64,
}

/// One network of a node.
pub(crate) struct Local {
    pub(crate) name: Name,
    pub(crate) slice: Runs,
    pub(crate) disk: Grants,
    /// What a power cut leaves of the grants, if what is on the disk is not synced.
    pub(crate) synced: Option<Grants>,
    pub(crate) confirmation: Option<Confirmation>,
    /// The plugin's queue, with the time since which each address is there.
    pub(crate) offered: BTreeMap<IpAddr, Duration>,
    /// Each lease with its pod. `true`: the pod runs.
    pub(crate) leases: BTreeMap<IpAddr, (u64, bool)>,
    /// The generation of the grants that the queue was made for.
    pub(crate) generation: u64,
    /// The ADD that has the lock.
    pub(crate) lock: Option<u64>,
    /// What waits for the lock.
    pub(crate) behind: Vec<Happening>,
    pub(crate) waiting: BTreeSet<u64>,
    /// The addresses that ADDs ask for by name, by pod.
    pub(crate) requested: BTreeMap<u64, IpAddr>,
    pub(crate) quarantined: BTreeMap<IpAddr, Duration>,
}

impl Machine {
    /// Time since boot.
    pub(crate) fn uptime(&self, now: Duration) -> Duration {
        self.by_own_clock(now - self.booted_at)
    }

    fn by_own_clock(&self, time: Duration) -> Duration {
        let nanos = time.as_nanos() as i64;
        Duration::from_nanos((nanos + nanos / 1_000_000 * self.drift) as u64)
    }

    /// The true time at which its uptime is this.
    pub(crate) fn true_time(&self, uptime: Duration) -> Duration {
        let nanos = uptime.as_nanos() as i64;
        let most = self.booted_at.as_nanos() as i64 + nanos - nanos / 1_000_000 * self.drift * 99 / 100;
        let mut at = Duration::from_nanos(most.max(0) as u64).max(self.booted_at);
        while self.uptime(at) < uptime {
            at += (uptime - self.uptime(at)).max(Duration::from_micros(1));
        }
        at
    }

    pub(crate) fn moment(&self, now: Duration) -> Moment {
        let clock = 1_000_000_000 + self.steps;
        Moment {
            boot: format!("{}-{}", self.name, self.boot),
            uptime: self.uptime(now),
            clock: Duration::from_secs(clock.max(0) as u64) + self.by_own_clock(now),
        }
    }

    /// Whether the agent runs.
    pub(crate) fn is_up(&self, now: Duration) -> bool {
        self.on && self.agent.is_some() && now >= self.stopped_until
    }
}

impl Local {
    pub(crate) fn pool_name(&self) -> Name {
        self.disk.pool.clone()
    }

    /// Makes the queue again from the grants.
    pub(crate) fn make_queue(&mut self, now: Duration) {
        self.generation = self.disk.generation;
        let granted = self.disk.home.iter().chain(self.disk.leased.iter());
        let idle: Vec<IpAddr> = granted.filter(|addr| !self.leases.contains_key(addr)).collect();
        let before = std::mem::take(&mut self.offered);
        self.offered = idle.into_iter().map(|addr| (addr, *before.get(&addr).unwrap_or(&now))).collect();
    }

    pub(crate) fn offer(&mut self, addr: IpAddr, now: Duration) {
        if self.disk.contains(addr) && !self.leases.contains_key(&addr) {
            self.offered.insert(addr, now);
        }
    }

    /// An ADD waits no longer. Whether it did is returned.
    pub(crate) fn stops_waiting(&mut self, pod: u64) -> bool {
        self.requested.remove(&pod);
        self.waiting.remove(&pod)
    }

    pub(crate) fn is_quarantined(&self, addr: IpAddr, now: Duration) -> bool {
        self.quarantined.get(&addr).is_some_and(|until| now < *until)
    }

    /// What the agent is told.
    pub(crate) fn report(&self, now: Duration) -> Report {
        let idle = |addr: &IpAddr| self.disk.contains(*addr) && !self.is_quarantined(*addr, now);
        let mut rested: Vec<(Duration, IpAddr)> = self
            .offered
            .iter()
            .filter(|(addr, since)| idle(addr) && now.saturating_sub(**since) >= REST)
            .map(|(addr, since)| (*since, *addr))
            .collect();
        rested.sort();
        let usage = Usage {
            idle: self.offered.keys().filter(|addr| idle(addr)).count() as u32,
            used: self.leases.len() as u32,
            waiting: (self.waiting.len() - self.requested.len()) as u32,
        };
        let runs = |addr: &IpAddr| self.leases.get(addr).is_some_and(|(_, runs)| *runs);
        Report {
            usage,
            rested: rested.into_iter().map(|(_, addr)| addr).collect(),
            proven: self.disk.unproven.iter().filter(runs).collect(),
        }
    }
}
