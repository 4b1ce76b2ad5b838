//! A store that went back to an older state: what a network does about its pool.

use std::time::Duration;

use super::{Dry, Network, Settings, Want};
use crate::block::BlockKey;
use crate::document::PoolState;
use crate::hunt::Hunt;
use crate::stock::Step;

/// How often the pool's document is written, until it says that the store went back.
const RECOVER_EVERY: Duration = Duration::from_secs(10);
/// So many blocks of the pool are looked at. Where there are more, a block that names this network is found
/// only if the grants name it.
const MOST_BLOCKS: usize = 1024;

impl Network {
    /// Changes what the network is configured to do. Documents come in the order in which the store had
    /// them: an older document looks like a store that went back. The return value says whether the store
    /// is found to have gone back. What was seen of other nodes means nothing then.
    pub fn configure(&mut self, settings: Settings) -> bool {
        if settings.range != self.settings.range {
            self.hunt = Hunt::new(settings.range.clone());
            self.hunting = false;
        }
        self.tell |= settings.state != self.settings.state;
        self.settings = settings;
        self.follow()
    }

    /// The store went back: somebody who knows what it was has seen it. The return value is as that of
    /// [`Network::configure`].
    pub fn went_back(&mut self) -> bool {
        let known = self.stock.grants().restored;
        let restored = self.settings.restored.max(known + u32::from(self.settings.restored <= known));
        self.fall_behind(restored)
    }

    /// Compares the pool with what the grants know of it.
    pub(super) fn follow(&mut self) -> bool {
        let (grants, Settings { id, restored, .. }) = (self.stock.grants(), &self.settings);
        let restored = if *id != grants.pool_id {
            // A pool that was made again. Its blocks say nothing of what nodes hold.
            (*restored).max(1)
        } else if *restored < grants.restored {
            // The document is older than the grants.
            grants.restored + 1
        } else {
            (*restored).max(self.stock.restored())
        };
        let is_new = *id != grants.pool_id || restored != grants.restored;
        let is_known = restored == self.stock.restored() && self.stock.is_behind();
        is_new && !is_known && self.fall_behind(restored)
    }

    fn fall_behind(&mut self, restored: u32) -> bool {
        let runs = self.settings.range.iter_runs().map(|(first, last)| {
            let next = move |block: &BlockKey| {
                Some(*block).filter(|block| block.addresses().all(|addr| addr < last))?.next()
            };
            std::iter::successors(Some(BlockKey::of(first)), next)
        });
        let blocks: Vec<BlockKey> = runs.flatten().take(MOST_BLOCKS).collect();
        self.stock.follow(&self.settings.id, restored, blocks);
        self.hunt = Hunt::new(self.settings.range.clone());
        self.lost.clear();
        (self.hunting, self.tell) = (false, true);
        (self.settle_at, self.paused_until) = (Duration::ZERO, Duration::ZERO);
        true
    }

    /// Has the document say that the store went back.
    pub(super) fn next_recovery(&mut self, now: Duration) -> Option<Vec<Want>> {
        if !self.is_unsaid() || now < self.recover_at {
            return None;
        }
        self.recover_at = now + RECOVER_EVERY;
        Some(vec![Want::Recover(self.stock.restored()), Want::Wake(now)])
    }

    pub(super) fn recovery_wake(&self) -> Option<Want> {
        self.is_unsaid().then_some(Want::Wake(self.recover_at))
    }

    /// Whether the document does not say yet that the store went back.
    fn is_unsaid(&self) -> bool {
        self.settings.restored < self.stock.restored()
    }

    /// The grants take note of what they were settled under. What the document does not say yet they do not
    /// say either.
    pub(super) fn adopt(&mut self) -> Option<Step> {
        if self.is_unsaid() { None } else { self.stock.adopt_epoch() }
    }

    /// Why the pool lets nobody claim. None if it does.
    pub(super) fn closed(&self) -> Option<Dry> {
        match self.settings.state {
            _ if self.stock.is_behind() || self.is_unsaid() => Some(Dry::Recovering),
            PoolState::Open => None,
            PoolState::Frozen => Some(Dry::Frozen),
            PoolState::Recovering => Some(Dry::Recovering),
        }
    }
}
