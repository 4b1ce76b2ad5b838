//! A store that went back to an older state, and grants of an older epoch: how the grants catch up.

use std::net::IpAddr;

use super::{Step, Stock};
use crate::block::{Block, BlockKey};
use crate::plan::Aim;
use crate::runs::Runs;

impl Stock {
    /// Takes note of the pool's identity and of how often its store went back. If the grants were made under
    /// others, every block is settled again, and `blocks` too: the store may name the holder in one that the
    /// grants do not know any more.
    pub(crate) fn follow(&mut self, id: &str, restored: u32, blocks: impl IntoIterator<Item = BlockKey>) {
        (self.pool_id, self.restored) = (id.to_owned(), restored);
        if self.is_behind() {
            self.doubted.extend(blocks);
            self.unsettle();
        }
    }

    /// How often the pool's store went back, as far as this holder knows.
    pub(crate) fn restored(&self) -> u32 {
        self.restored
    }

    /// Whether the store went back, or the pool is another one, and the grants are not settled since.
    pub fn is_behind(&self) -> bool {
        self.grants.restored != self.restored || self.grants.pool_id != self.pool_id
    }

    /// Writes into grants that are settled what they were settled under. None if that is not needed.
    pub fn adopt_epoch(&mut self) -> Option<Step> {
        let old = self.grants.epoch != self.me.epoch || self.is_behind();
        let walked = !self.is_behind() || self.doubted.is_empty();
        if !(old && walked && self.idle() && self.unsettled.is_empty()) {
            return None;
        }
        let any = BlockKey::of(std::net::Ipv4Addr::UNSPECIFIED.into());
        self.prepare(any, Aim::default());
        if let Some(round) = &mut self.round {
            round.adopts = true;
        }
        Some(self.proceed())
    }

    /// After the store went back no leased address stays granted before somebody has looked whether a pod
    /// uses it.
    pub(super) fn aim_of_now(&self, block: BlockKey, mut aim: Aim) -> Aim {
        if self.is_behind() {
            aim.release.extend(block.addresses().filter(|addr| self.grants.leased.contains(*addr)));
        }
        aim
    }

    /// The granted addresses of a block that the store does not grant. It may have forgotten a home address.
    pub(super) fn gone(&self, block: &Block, key: BlockKey, held: &Runs) -> Vec<IpAddr> {
        let forgotten = |addr: IpAddr| {
            let entry = key.offset(addr).and_then(|offset| block.entry(offset));
            self.is_behind()
                && entry.is_none()
                && self.slice.contains(addr)
                && self.grants.home.contains(addr)
        };
        self.grants.of_block(key).filter(|addr| !held.contains(*addr) && !forgotten(*addr)).collect()
    }
}
