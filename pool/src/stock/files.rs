//! What a round writes on the node: the grants before and after the write to the store, and the confirmation.

use std::time::Duration;

use super::{Round, Stock};
use crate::grants::{Confirmation, Grants, Moment};
use crate::membership::Confirmed;
use crate::rules::Rule;

impl Stock {
    /// The grants before the write: without what goes, under the epoch of now, with the block if something
    /// is claimed in it. What lies no longer in the slice is leased before the store says so.
    pub(super) fn without(&self, round: &Round) -> Grants {
        let mut grants = self.next_grants();
        if self.rules.hold(Rule::DurableFirst) {
            round.aim.release.iter().for_each(|addr| grants.remove(addr));
        }
        if round.naming {
            grants.blocks.insert(round.block);
        }
        let leased = grants.home.without(&self.slice);
        leased.iter_runs().for_each(|(first, last)| {
            grants.home.remove_run(first, last);
            grants.leased.insert_run(first, last);
        });
        if round.adopts {
            (grants.pool_id, grants.restored) = (self.pool_id.clone(), self.restored);
        }
        grants
    }

    /// The grants after the write.
    pub(super) fn with(&self, round: &Round) -> Grants {
        let mut grants = self.next_grants();
        let released = round.aim.release.iter().filter(|addr| !round.plan.gained.contains(*addr));
        released.for_each(|addr| grants.remove(addr));
        for addr in round.plan.gained.iter() {
            let home = self.slice.contains(addr) && !round.plan.unproven.contains(addr);
            if home { grants.home.insert(addr) } else { grants.leased.insert(addr) }
        }
        let leased: Vec<_> = round.block.addresses().filter(|addr| grants.leased.contains(*addr)).collect();
        for addr in leased {
            let unproven = round.plan.unproven.contains(addr);
            if unproven {
                grants.unproven.insert(addr)
            } else {
                grants.unproven.remove(addr)
            }
            if !unproven && self.slice.contains(addr) {
                grants.leased.remove(addr);
                grants.home.insert(addr);
            }
        }
        if round.naming {
            grants.blocks.insert(round.block);
        }
        grants
    }

    /// The confirmation to write for this network. None if its grants are not verified, or under another
    /// epoch than the store confirmed.
    pub fn confirmation(&self, confirmed: &Confirmed, give_for: Option<Duration>) -> Option<Confirmation> {
        let Confirmed { epoch, sent_at: Moment { boot, uptime, clock } } = confirmed.clone();
        let confirmation = Confirmation { epoch, boot, sent_at: uptime, sent_at_clock: clock, give_for };
        (self.verified() && epoch == self.me.epoch).then_some(confirmation)
    }

    fn next_grants(&self) -> Grants {
        let mut next = self.grants.generation_set(self.grants.generation + 1);
        next.blocks.retain(|block| !self.left.contains(block));
        Grants { epoch: self.me.epoch, ..next }
    }
}
