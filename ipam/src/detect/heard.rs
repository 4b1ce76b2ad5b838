//! The claims of other machines in one window: the addresses that they use, and those that they only probe
//! for. Nothing here does I/O.
//!
//! Two machines that probe for one address at the same moment must not both take it (RFC 5227 section 2.1.1).
//! But any machine can probe for all addresses and so block them. Therefore:
//!
//! - An address that another machine only probed for is skipped, not quarantined.
//! - After an ADD has seen such probes, it probes for a single address, as every other ADD then does. It
//!   ignores the probes of a MAC that probes for many addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use kernel::probe::{Claim, Stance};

/// A MAC that probes for more addresses in one window, while others probe for one each, does not want an
/// address.
const MAX_PROBED: usize = 4;
/// The number of MACs that are tracked separately. All further MACs count as one.
const MOST_MACS: usize = 256;
const OTHER_MACS: MacAddr = MacAddr([0; 6]);

/// The claims of one window.
#[derive(Debug, Default)]
pub(super) struct HeardClaims {
    uses: BTreeMap<IpAddr, MacAddr>,
    probes: BTreeMap<MacAddr, Probed>,
}

/// The addresses that a MAC has probed for.
#[derive(Debug, Default)]
struct Probed {
    in_batch: BTreeSet<IpAddr>,
    /// Limited to as many as make the MAC exceed `MAX_PROBED`.
    others: BTreeSet<IpAddr>,
}

impl Probed {
    fn wants_an_address(&self) -> bool {
        self.in_batch.len() + self.others.len() <= MAX_PROBED
    }
}

impl HeardClaims {
    /// Starts with addresses that are known to be in use.
    pub(super) fn of_uses(uses: BTreeMap<IpAddr, MacAddr>) -> HeardClaims {
        HeardClaims { uses, ..HeardClaims::default() }
    }

    /// Records a claim, in a window that probes for the addresses of `batch`.
    pub(super) fn note(&mut self, claim: Claim, batch: &[IpAddr]) {
        let in_batch = batch.contains(&claim.addr);
        match claim.stance {
            Stance::Uses if in_batch => drop(self.uses.insert(claim.addr, claim.mac)),
            Stance::Uses => {}
            Stance::Probes => {
                let is_new = self.probes.len() >= MOST_MACS && !self.probes.contains_key(&claim.mac);
                let probed = self.probes.entry(if is_new { OTHER_MACS } else { claim.mac }).or_default();
                if in_batch {
                    probed.in_batch.insert(claim.addr);
                } else if probed.others.len() <= MAX_PROBED {
                    probed.others.insert(claim.addr);
                }
            }
        }
    }

    /// The addresses in use, and the MAC of each.
    pub(super) fn uses(&self) -> &BTreeMap<IpAddr, MacAddr> {
        &self.uses
    }

    /// The addresses that other machines probe for. With `serious_only`, MACs that probe for many addresses
    /// do not count.
    pub(super) fn contested(&self, serious_only: bool) -> BTreeSet<IpAddr> {
        let counting = self.probes.values().filter(|probed| !serious_only || probed.wants_an_address());
        let probed = counting.flat_map(|probed| probed.in_batch.iter().copied());
        probed.filter(|addr| !self.uses.contains_key(addr)).collect()
    }

    /// A MAC whose probes do not count.
    pub(super) fn ignored_prober(&self) -> Option<MacAddr> {
        self.probes.iter().find(|(_, probed)| !probed.wants_an_address()).map(|(mac, _)| *mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn heard(claims: &[(u8, u8, Stance)], batch: &[IpAddr]) -> HeardClaims {
        let mut heard = HeardClaims::default();
        for (mac, last, stance) in claims {
            heard.note(
                Claim { addr: addr(*last), mac: MacAddr([2, 0, 0, 0, 0, *mac]), stance: *stance },
                batch,
            );
        }
        heard
    }

    #[test]
    fn a_use_is_a_conflict_and_a_probe_contests() {
        let batch = [addr(1), addr(2), addr(3)];
        let heard = heard(
            &[(7, 1, Stance::Uses), (7, 1, Stance::Probes), (8, 2, Stance::Probes), (8, 9, Stance::Uses)],
            &batch,
        );
        assert_eq!(heard.uses().keys().copied().collect::<Vec<_>>(), [addr(1)]);
        assert_eq!(heard.contested(false), BTreeSet::from([addr(2)]));
        assert_eq!(heard.contested(true), BTreeSet::from([addr(2)]));
        assert_eq!(heard.ignored_prober(), None);
    }

    #[test]
    fn a_mac_that_probes_for_many_does_not_count_if_serious_only() {
        let many: Vec<_> = (1..=MAX_PROBED as u8 + 1).map(|last| (7, last, Stance::Probes)).collect();
        let all = heard(&many, &[addr(1)]);
        assert_eq!(all.contested(false), BTreeSet::from([addr(1)]));
        assert!(all.contested(true).is_empty());
        assert_eq!(all.ignored_prober(), Some(MacAddr([2, 0, 0, 0, 0, 7])));
        let few = heard(&many[..MAX_PROBED], &[addr(1)]);
        assert_eq!(few.contested(true), BTreeSet::from([addr(1)]));
    }

    #[test]
    fn memory_is_bounded() {
        let mut heard = HeardClaims::default();
        for number in 0..5_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            let mac = MacAddr([2, 0, 0, a, b, c]);
            heard.note(Claim { addr: [10, a, b, c].into(), mac, stance: Stance::Probes }, &[addr(1)]);
        }
        assert_eq!(heard.probes.len(), MOST_MACS + 1);
        assert!(heard.probes.values().all(|probed| probed.others.len() <= MAX_PROBED + 1));
    }
}
