//! What a network gives back: its surplus, and what other nodes ask for.

use std::time::Duration;

use super::{BATCH, NOTHING, Network, OWED_FOR, Recall, SCARCE_FOR};
use crate::block::BlockKey;
use crate::runs::Runs;

impl Network {
    /// Another node asks for addresses: it found the pool without a free one, or it asks for one by name.
    pub fn recalled(&mut self, recall: Recall, now: Duration) {
        if let Some(addr) = recall.address {
            if now >= self.owed_these_until {
                self.owed_these = Runs::EMPTY;
            }
            self.owed_these.insert(addr);
            self.owed_these_until = now + OWED_FOR;
            self.paused_until = self.paused_until.min(now);
            return;
        }
        self.scarce_until = now + SCARCE_FOR;
        if now >= self.owed_until {
            self.owed = NOTHING;
        }
        // Each question is also the answer to how far the one before went.
        let Recall { count, floor, .. } = self.owed;
        self.owed = Recall { count: count.max(recall.count), floor: floor.min(recall.floor), ..NOTHING };
        self.owed_until = now + OWED_FOR;
    }

    /// The addresses of one block to give back.
    pub(super) fn next_release(&mut self, now: Duration) -> Option<(BlockKey, Runs)> {
        let grants = self.stock.grants();
        let may_go = |addr: &std::net::IpAddr| {
            grants.leased.contains(*addr) || (self.settings.lends_home && grants.home.contains(*addr))
        };
        self.report.rested.retain(may_go);
        let named = now < self.owed_these_until;
        let named = self.report.rested.iter().find(|addr| named && self.owed_these.contains(**addr)).copied();
        if let Some(addr) = named {
            self.owed_these.remove(addr);
            return Some(self.release(BlockKey::of(addr), [addr].into_iter().collect()));
        }
        if now >= self.owed_until {
            self.owed = NOTHING;
        }
        let surplus = self.settings.marks.surplus(self.report.usage);
        let Recall { count, floor, .. } = self.owed;
        let owed = count.min(self.report.usage.idle.saturating_sub(floor));
        // The node's own slice is lent to those that ask, after what is leased.
        let leased = self.report.rested.iter().find(|addr| grants.leased.contains(**addr));
        let (first, count) = match leased {
            Some(first) => (first, surplus.max(owed)),
            None => (self.report.rested.first()?, owed),
        };
        let (block, is_leased) = (BlockKey::of(*first), leased.is_some());
        let goes = |addr: &&std::net::IpAddr| {
            block.offset(**addr).is_some() && grants.leased.contains(**addr) == is_leased
        };
        let rested = self.report.rested.iter().filter(goes);
        let release: Runs = rested.take(count.min(BATCH) as usize).copied().collect();
        if release.is_empty() {
            return None;
        }
        let gone = u32::try_from(release.len()).unwrap_or(u32::MAX);
        self.owed.count = self.owed.count.saturating_sub(gone);
        Some(self.release(block, release))
    }

    fn release(&mut self, block: BlockKey, release: Runs) -> (BlockKey, Runs) {
        self.report.rested.retain(|addr| !release.contains(*addr));
        let gone = u32::try_from(release.len()).unwrap_or(u32::MAX);
        self.report.usage.idle = self.report.usage.idle.saturating_sub(gone);
        (block, release)
    }
}
