//! The model: the expected content of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The identity of a lease's file: its inode and its time.
pub(super) type Paper = (u64, i64, i64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) owner: u8,
    pub(super) paper: Paper,
}

/// The store's facts about an owner, besides its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) boot: u32,
    /// The process that the ADD named as the namespace.
    pub(super) process: Option<u32>,
    pub(super) papers: BTreeSet<Paper>,
}

/// The error code of a refused ADD.
pub(super) const HOLDS_ALREADY: u64 = 110;
pub(super) const UNAVAILABLE: u64 = 111;
pub(super) const EXHAUSTED: u64 = 11;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) boot: u32,
    pub(super) leases: BTreeMap<IpAddr, Lease>,
    pub(super) known: BTreeMap<u8, Known>,
    /// The running processes, by owner.
    pub(super) alive: BTreeMap<u8, u32>,
}

impl Model {
    pub(super) fn held_by(&self, owner: u8) -> BTreeSet<IpAddr> {
        let held = self.leases.iter().filter(|(_, lease)| lease.owner == owner);
        held.map(|(addr, _)| *addr).collect()
    }

    fn papers(&self, owner: u8) -> BTreeSet<Paper> {
        self.leases.values().filter(|lease| lease.owner == owner).map(|lease| lease.paper).collect()
    }

    pub(super) fn release(&mut self, owner: u8) {
        self.leases.retain(|_, lease| lease.owner != owner);
        self.known.remove(&owner);
    }

    /// The first part of every call of our plugin: it releases leases of an earlier boot, and records new
    /// leases.
    pub(super) fn look(&mut self) {
        let known = std::mem::take(&mut self.known);
        self.leases.retain(|_, lease| {
            !known
                .get(&lease.owner)
                .is_some_and(|known| known.boot != self.boot && known.papers.contains(&lease.paper))
        });
        let owners: BTreeSet<u8> = self.leases.values().map(|lease| lease.owner).collect();
        for owner in owners {
            let papers = self.papers(owner);
            let known = match known.get(&owner) {
                Some(known) if papers.is_subset(&known.papers) => Known { papers, ..known.clone() },
                // host-local wrote them, or some of them.
                _ => Known { boot: self.boot, process: None, papers },
            };
            self.known.insert(owner, known);
        }
    }

    /// Whether the owner's namespace is known to be gone.
    pub(super) fn is_dead(&self, owner: u8) -> bool {
        let process = self.known.get(&owner).and_then(|known| known.process);
        process.is_some_and(|process| !self.alive.values().any(|alive| *alive == process))
    }

    /// Releases the addresses of dead owners.
    pub(super) fn reclaim(&mut self) {
        let owners: Vec<u8> = self.known.keys().copied().collect();
        for owner in owners {
            if self.is_dead(owner) {
                self.release(owner);
            }
        }
    }

    fn free(&self, set: &BTreeSet<IpAddr>) -> usize {
        set.iter().filter(|addr| !self.leases.contains_key(addr)).count()
    }

    /// Whether our plugin refuses an ADD. The model is in the state after the ADD has released leases.
    pub(super) fn refuses(
        &mut self,
        owner: u8,
        ask: Option<IpAddr>,
        sets: &[BTreeSet<IpAddr>],
    ) -> Option<u64> {
        self.look();
        if !self.held_by(owner).is_empty() {
            return Some(HOLDS_ALREADY);
        }
        for set in sets {
            match ask.filter(|addr| set.contains(addr)) {
                Some(addr) if self.leases.contains_key(&addr) => return Some(UNAVAILABLE),
                Some(_) => {}
                None if self.free(set) == 0 => {
                    self.reclaim();
                    if self.free(set) == 0 {
                        return Some(EXHAUSTED);
                    }
                }
                None => {}
            }
        }
        None
    }

    /// The number of ADDs that will still find an address in each set.
    pub(super) fn capacity(&self, sets: &[BTreeSet<IpAddr>]) -> usize {
        sets.iter().map(|set| self.free(set)).min().unwrap_or(0)
    }
}
