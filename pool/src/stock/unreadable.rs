//! A block whose value this release cannot read: a newer one wrote it, or somebody by hand.

use super::{Ended, Round, Step, Stock, Stopped};
use crate::block::BlockKey;
use crate::plan::Aim;

impl Stock {
    /// Whether a block that is not settled holds up the confirmation. A block that cannot be read does not,
    /// because no leased address of it is granted, and home addresses need no confirmation.
    pub(super) fn holds_up(&self, block: BlockKey) -> bool {
        let set_aside = self.unreadable.contains(&block);
        self.grants.of_block(block).any(|addr| !set_aside || self.grants.leased.contains(addr))
    }

    /// Leaves the block as it is, and drops what is leased in it from the grants, which go on to name the
    /// block. Once it can be read it is settled: what pods use then comes back.
    pub(super) fn set_aside(&mut self, mut round: Round) -> Step {
        self.unreadable.insert(round.block);
        self.unsettled.insert(round.block);
        let leased = round.block.addresses().filter(|addr| self.grants.leased.contains(*addr));
        round.aim = Aim { release: leased.collect(), ..Aim::default() };
        round.sets_aside = true;
        self.round = Some(round);
        self.proceed()
    }

    pub(super) fn unread() -> Step {
        Step::End(Ended { stopped: Some(Stopped::Unreadable), ..Ended::default() })
    }
}
