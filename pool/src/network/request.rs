//! Addresses that ADDs ask for by name.

use std::net::IpAddr;
use std::time::Duration;

use super::{Dry, LONGEST_PAUSE, Network, PAUSE, Recall, Want};
use crate::block::BlockKey;
use crate::plan::{Aim, Claim};
use crate::runs::Runs;
use crate::stock::Ended;

/// The addresses that are asked for, and how far the claims have come.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    wanted: Runs,
    untried: Runs,
    /// The one that the round under way claims.
    claimed: Option<IpAddr>,
    again_at: Duration,
    pause: Duration,
}

impl Requests {
    pub(super) const NONE: Requests = Requests {
        wanted: Runs::EMPTY,
        untried: Runs::EMPTY,
        claimed: None,
        again_at: Duration::ZERO,
        pause: PAUSE,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

impl Network {
    /// Takes note of all addresses that ADDs ask for now, because they are not granted.
    pub fn requested(&mut self, addrs: Runs, now: Duration) {
        let new = addrs.without(&self.requests.wanted);
        self.requests.untried = self.requests.untried.without(&self.requests.untried.without(&addrs));
        self.requests.wanted = addrs;
        if !new.is_empty() {
            self.requests.untried.extend(new.iter());
            self.requests.pause = PAUSE;
            self.paused_until = self.paused_until.min(now);
            self.tell = true;
        }
    }

    /// Claims the next address that was asked for. None if there is none now.
    pub(super) fn next_request(&mut self, now: Duration) -> Option<Vec<Want>> {
        if self.requests.wanted.is_empty() || self.closed().is_some() {
            return None;
        }
        let grants = self.stock.grants();
        let granted: Runs = self.requests.wanted.iter().filter(|addr| grants.contains(*addr)).collect();
        for addrs in [&mut self.requests.wanted, &mut self.requests.untried] {
            *addrs = addrs.without(&granted);
        }
        if self.requests.untried.is_empty() && now >= self.requests.again_at {
            self.requests.untried = self.requests.wanted.clone();
        }
        let addr = self.requests.untried.first()?;
        self.requests.untried.remove(addr);
        let usage = self.report.usage;
        self.requests.again_at = now + self.requests.pause;
        self.requests.pause = (self.requests.pause * 2).min(LONGEST_PAUSE);
        if !self.settings.range.contains(addr) {
            return Some(vec![Want::Dry(Dry::NotInPool(addr))]);
        }
        if usage.idle.saturating_add(usage.used) >= self.settings.marks.max {
            return Some(vec![Want::Dry(Dry::Most(self.settings.marks.max))]);
        }
        self.requests.claimed = Some(addr);
        let claim = Claim::These([addr].into_iter().collect());
        Some(self.begin(BlockKey::of(addr), Aim { claim, suspects: true, ..Aim::default() }))
    }

    /// What became of the claim of a requested address: its holder is asked for it.
    pub(super) fn request_ended(&mut self, ended: &Ended) -> Vec<Want> {
        let Some(addr) = self.requests.claimed.take() else { return Vec::new() };
        let block = BlockKey::of(addr);
        let entry = block.offset(addr).and_then(|offset| ended.block.as_ref()?.entry(offset));
        let Some(entry) = entry.filter(|_| ended.whole && !ended.gained.contains(addr)) else {
            return Vec::new();
        };
        let (dry, holder) = Dry::of_entry(addr, entry, self.stock.me());
        let recall = Recall { count: 1, floor: 0, address: Some(addr) };
        let ask = holder.map(|node| Want::Ask(vec![node], recall));
        ask.into_iter().chain([Want::Dry(dry)]).collect()
    }

    /// When requested addresses are tried again.
    pub(super) fn request_wake(&self, now: Duration) -> Option<Want> {
        let waits = self.stock.idle() && !self.requests.wanted.is_empty() && self.closed().is_none();
        let at = if self.requests.untried.is_empty() { self.requests.again_at } else { now };
        waits.then_some(Want::Wake(at))
    }
}
