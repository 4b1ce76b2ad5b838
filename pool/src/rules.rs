//! The rules of the protocol that tests switch off, to show that the search finds a double without each.
//!
//! In a build that is not a test's, [`Rules`] has no size and every rule holds.

/// A rule. `docs/pools.md` gives the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests switch a rule off"))]
#[repr(u8)]
pub(crate) enum Rule {
    /// 1: an address leaves the grants on the disk before it leaves the node's entry in the store.
    DurableFirst,
    /// 2: after that, the leases are looked at under the network's lock, and a leased address stays.
    LookAtLeases,
    /// 3: a write whose answer is unknown is settled by another write to the same block.
    Settle,
    /// 4: an address of a lost epoch becomes suspect only after the wait.
    Wait,
    /// 5: the plugin looks for the address in the grants when it claims it.
    LookAtGrants,
    /// 6: a suspect is given only after a silent probe.
    Probe,
    /// 7: the store says which addresses are unproven.
    MarkUnproven,
    /// 8: an unproven address goes back as suspect.
    BackAsSuspect,
    /// 9: an ADD that claimed an address and was held up looks at the clock again before it completes.
    Margin,
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    #[cfg(test)]
    off: u16,
}

impl Rules {
    /// All but one.
    #[cfg(test)]
    pub(crate) fn without(rule: Rule) -> Rules {
        Rules { off: 1 << rule as u8 }
    }

    /// Whether a rule holds.
    #[cfg(test)]
    pub(crate) fn hold(self, rule: Rule) -> bool {
        self.off & (1 << rule as u8) == 0
    }

    /// Whether a rule holds: always.
    #[cfg(not(test))]
    pub(crate) fn hold(self, _: Rule) -> bool {
        true
    }
}
