//! The grants of one network: which addresses its pods may get. The agent writes them, the IPAM plugin reads
//! them at every ADD.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::block::BlockKey;
use crate::name::Name;
use crate::rules::{Rule, Rules};
use crate::runs::Runs;

/// What the pool granted to one network of this node. The file is synced to the disk before anything in the
/// store depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grants {
    /// The pool.
    pub pool: Name,
    /// The pool's identity, which a pool made anew under the same name does not have.
    pub pool_id: String,
    /// The node's name in the pool.
    pub node: Name,
    /// The network.
    pub network: Name,
    /// The epoch of the node's register under which the grants are held.
    pub epoch: u32,
    /// Goes up with each write of this file.
    pub generation: u64,
    /// Home addresses, which pods get whether or not the grants are confirmed.
    pub home: Runs,
    /// Addresses that pods get only while the grants are confirmed.
    pub leased: Runs,
    /// Those of `leased` that pods get only after a silent probe.
    pub unproven: Runs,
    /// The blocks in which the store may name this holder. A claim is sent only after its block stands here,
    /// so an agent that was killed finds what it claimed.
    pub blocks: BTreeSet<BlockKey>,
}

/// The store's word that the grants hold. It lies on a tmpfs, so no boot begins with one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// The epoch that the register had.
    pub epoch: u32,
    /// The boot in which the question was sent.
    pub boot: String,
    /// When the question was sent, since the boot began.
    pub sent_at: Duration,
    /// When the question was sent, since 1970.
    pub sent_at_clock: Duration,
    /// How long leased addresses are given to new pods without another confirmation. None: without end.
    pub give_for: Option<Duration>,
}

/// A moment on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// The boot's identity.
    pub boot: String,
    /// Time since the boot began, including sleep (`CLOCK_BOOTTIME`).
    pub uptime: Duration,
    /// Time since 1970 by the machine's clock.
    pub clock: Duration,
}

/// Whether a pod may get an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Give,
    /// After a probe that nobody answered, whatever `conflictDetection` says.
    GiveIfSilent,
    /// No: it is not granted.
    NotGranted,
    /// No: the store has not confirmed the grants, or too long ago.
    Unconfirmed,
}

impl Grants {
    /// Whether a pod may get the address now. The plugin asks under the network's lock, when it claims the
    /// address, and not only when it chooses one.
    pub fn may_give(&self, addr: IpAddr, confirmation: Option<&Confirmation>, now: &Moment) -> Verdict {
        self.may_give_under(Rules::default(), addr, confirmation, now)
    }

    pub(crate) fn may_give_under(
        &self,
        rules: Rules,
        addr: IpAddr,
        confirmation: Option<&Confirmation>,
        now: &Moment,
    ) -> Verdict {
        if self.home.contains(addr) {
            return Verdict::Give;
        }
        if !self.leased.contains(addr) && rules.hold(Rule::LookAtGrants) {
            return Verdict::NotGranted;
        }
        if !confirmation.is_some_and(|confirmation| confirmation.holds(self.epoch, now)) {
            return Verdict::Unconfirmed;
        }
        if self.unproven.contains(addr) && rules.hold(Rule::Probe) {
            Verdict::GiveIfSilent
        } else {
            Verdict::Give
        }
    }

    /// Whether an address is granted, confirmed or not.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.home.contains(addr) || self.leased.contains(addr)
    }

    /// The granted addresses of one block.
    pub fn of_block(&self, block: BlockKey) -> impl Iterator<Item = IpAddr> + '_ {
        block.addresses().filter(|addr| self.contains(*addr))
    }

    /// Takes an address out.
    pub(crate) fn remove(&mut self, addr: IpAddr) {
        for runs in [&mut self.home, &mut self.leased, &mut self.unproven] {
            runs.remove(addr);
        }
    }

    /// Whether two files grant the same. The generation tells files apart, not what they grant.
    pub(crate) fn grant_the_same(&self, other: &Grants) -> bool {
        self.generation_set(0) == other.generation_set(0)
    }

    pub(crate) fn generation_set(&self, generation: u64) -> Grants {
        Grants { generation, ..self.clone() }
    }
}

impl Confirmation {
    /// Whether the grants of this epoch are confirmed now. The time that passed is the longer by either
    /// clock: a machine that was suspended or restored may have the one or the other wrong.
    pub fn holds(&self, epoch: u32, now: &Moment) -> bool {
        let passed = now.uptime.checked_sub(self.sent_at);
        let by_clock = now.clock.saturating_sub(self.sent_at_clock);
        let in_time = |passed: Duration| self.give_for.is_none_or(|most| passed.max(by_clock) < most);
        self.epoch == epoch && self.boot == now.boot && passed.is_some_and(in_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(uptime: u32, clock: u32) -> Moment {
        Moment { boot: "b".into(), uptime: uptime * SECOND, clock: clock * SECOND }
    }

    fn confirmation(give_for: Option<u32>) -> Confirmation {
        let give_for = give_for.map(|seconds| seconds * SECOND);
        let Moment { boot, uptime, clock } = at(100, 1000);
        Confirmation { epoch: 3, boot, sent_at: uptime, sent_at_clock: clock, give_for }
    }

    #[test]
    fn a_confirmation_ends_by_the_clock_that_says_so_first() {
        let limited = confirmation(Some(10));
        assert!(limited.holds(3, &at(109, 1009)) && limited.holds(3, &at(109, 500)));
        assert!(!limited.holds(3, &at(110, 1000)) && !limited.holds(3, &at(101, 1010)));
        assert!(!limited.holds(3, &at(99, 1000)), "a time before the question is of no boot that is known");
        let endless = confirmation(None);
        assert!(endless.holds(3, &at(1_000_000, 2_000_000)));
        assert!(!endless.holds(2, &at(100, 1000)) && !endless.holds(4, &at(100, 1000)));
        assert!(!endless.holds(3, &Moment { boot: "c".into(), ..at(100, 1000) }));
    }

    #[test]
    fn home_is_given_always_and_leased_only_if_confirmed() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let (pool, node, network) = ["p", "a", "n"].map(|name| Name::new(name).unwrap()).into();
        let grants = Grants {
            pool,
            pool_id: "1".into(),
            node,
            network,
            epoch: 3,
            generation: 1,
            home: [ip(1)].into_iter().collect(),
            leased: [ip(2), ip(3)].into_iter().collect(),
            unproven: [ip(3)].into_iter().collect(),
            blocks: BTreeSet::new(),
        };
        let (confirmed, now) = (confirmation(Some(10)), at(105, 1005));
        let verdicts = |confirmed: Option<&Confirmation>| {
            [1, 2, 3, 4].map(|last| grants.may_give(ip(last), confirmed, &now))
        };
        use Verdict::*;
        assert_eq!(verdicts(Some(&confirmed)), [Give, Give, GiveIfSilent, NotGranted]);
        assert_eq!(verdicts(None), [Give, Unconfirmed, Unconfirmed, NotGranted]);
    }
}
