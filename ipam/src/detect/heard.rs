//! What a window of probing has heard of others: who uses an address, and who only asks for one. Pure.
//!
//! Two machines that probe for one address at the same moment must not both take it (RFC 5227 section 2.1.1).
//! But anybody can probe for any address, so that nobody gets one. So an address that was only probed for is
//! passed over and not set aside; and once an ADD has met such probes it looks for one address alone, as
//! whoever means it does by then, and does not count those of a MAC that asks for many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use kernel::probe::{Claim, Stance};

/// Who asks for more addresses than that in one window, while others ask for one each, asks for none in
/// earnest.
const FEW: usize = 4;
/// So many MACs are told apart; the rest counts as one.
const MOST_MACS: usize = 256;
const THE_REST: MacAddr = MacAddr([0; 6]);

/// What was heard in one window.
#[derive(Debug, Default)]
pub(super) struct Heard {
    uses: BTreeMap<IpAddr, MacAddr>,
    probes: BTreeMap<MacAddr, Asked>,
}

/// The addresses that a MAC has asked for.
#[derive(Debug, Default)]
struct Asked {
    of_ours: BTreeSet<IpAddr>,
    /// No more of them than it takes to be too many.
    others: BTreeSet<IpAddr>,
}

impl Asked {
    fn is_in_earnest(&self) -> bool {
        self.of_ours.len() + self.others.len() <= FEW
    }
}

impl Heard {
    /// What is known before anything is heard: these are used.
    pub(super) fn of_uses(uses: BTreeMap<IpAddr, MacAddr>) -> Heard {
        Heard { uses, ..Heard::default() }
    }

    /// Notes what a frame says, in a window that looks for these addresses.
    pub(super) fn note(&mut self, claim: Claim, batch: &[IpAddr]) {
        let is_ours = batch.contains(&claim.addr);
        match claim.stance {
            Stance::Uses if is_ours => drop(self.uses.insert(claim.addr, claim.mac)),
            Stance::Uses => {}
            Stance::Probes => {
                let is_new = self.probes.len() >= MOST_MACS && !self.probes.contains_key(&claim.mac);
                let asked = self.probes.entry(if is_new { THE_REST } else { claim.mac }).or_default();
                if is_ours {
                    asked.of_ours.insert(claim.addr);
                } else if asked.others.len() <= FEW {
                    asked.others.insert(claim.addr);
                }
            }
        }
    }

    /// The addresses that somebody uses, with the MAC.
    pub(super) fn uses(&self) -> &BTreeMap<IpAddr, MacAddr> {
        &self.uses
    }

    /// The addresses that somebody else asks for; in earnest, if only that is to count.
    pub(super) fn contested(&self, in_earnest: bool) -> BTreeSet<IpAddr> {
        let counting = self.probes.values().filter(|asked| !in_earnest || asked.is_in_earnest());
        let asked = counting.flat_map(|asked| asked.of_ours.iter().copied());
        asked.filter(|addr| !self.uses.contains_key(addr)).collect()
    }

    /// A MAC whose probes do not count.
    pub(super) fn idle_prober(&self) -> Option<MacAddr> {
        self.probes.iter().find(|(_, asked)| !asked.is_in_earnest()).map(|(mac, _)| *mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn heard(claims: &[(u8, u8, Stance)], batch: &[IpAddr]) -> Heard {
        let mut heard = Heard::default();
        for (mac, last, stance) in claims {
            heard.note(
                Claim { addr: addr(*last), mac: MacAddr([2, 0, 0, 0, 0, *mac]), stance: *stance },
                batch,
            );
        }
        heard
    }

    #[test]
    fn who_uses_an_address_has_it_and_who_asks_for_it_contests_it() {
        let batch = [addr(1), addr(2), addr(3)];
        let heard = heard(
            &[(7, 1, Stance::Uses), (7, 1, Stance::Probes), (8, 2, Stance::Probes), (8, 9, Stance::Uses)],
            &batch,
        );
        assert_eq!(heard.uses().keys().copied().collect::<Vec<_>>(), [addr(1)]);
        assert_eq!(heard.contested(false), BTreeSet::from([addr(2)]));
        assert_eq!(heard.contested(true), BTreeSet::from([addr(2)]));
        assert_eq!(heard.idle_prober(), None);
    }

    #[test]
    fn who_asks_for_many_does_not_count_where_only_earnest_probes_do() {
        let many: Vec<_> = (1..=FEW as u8 + 1).map(|last| (7, last, Stance::Probes)).collect();
        let all = heard(&many, &[addr(1)]);
        assert_eq!(all.contested(false), BTreeSet::from([addr(1)]));
        assert!(all.contested(true).is_empty());
        assert_eq!(all.idle_prober(), Some(MacAddr([2, 0, 0, 0, 0, 7])));
        let few = heard(&many[..FEW], &[addr(1)]);
        assert_eq!(few.contested(true), BTreeSet::from([addr(1)]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut heard = Heard::default();
        for number in 0..5_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            let mac = MacAddr([2, 0, 0, a, b, c]);
            heard.note(Claim { addr: [10, a, b, c].into(), mac, stance: Stance::Probes }, &[addr(1)]);
        }
        assert_eq!(heard.probes.len(), MOST_MACS + 1);
        assert!(heard.probes.values().all(|asked| asked.others.len() <= FEW + 1));
    }
}
