//! How many addresses may be probed for: on average one each ten seconds and network, because each probe is a
//! broadcast that every host of the network receives.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::attempts::Time;

/// The time in which a network earns one address.
const EACH: Duration = Duration::from_secs(10);
/// The most that a network saves up. A network that has just appeared has as many.
const MOST: usize = 2;

/// The budgets of all networks.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// When each network has earned all that it may save up.
    full_at: BTreeMap<String, Time>,
}

impl Budget {
    /// How many addresses may be probed for now.
    pub(crate) fn of(&self, network: &str, now: Time) -> usize {
        let missing = self.full_at.get(network).map_or(Time::ZERO, |full| full.saturating_sub(now));
        let spent = missing.as_millis().div_ceil(EACH.as_millis());
        MOST.saturating_sub(usize::try_from(spent).unwrap_or(MOST))
    }

    /// Notes that addresses were probed for.
    pub(crate) fn spend(&mut self, network: &str, probed: usize, now: Time) {
        self.full_at.retain(|_, full| *full > now);
        if probed > 0 {
            let full = self.full_at.entry(network.to_owned()).or_insert(now);
            *full += EACH * u32::try_from(probed).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_earns_an_address_each_ten_seconds_and_saves_two() {
        let at = Duration::from_secs;
        let mut budget = Budget::default();
        assert_eq!(budget.of("a", at(100)), 2);
        budget.spend("a", 2, at(100));
        assert_eq!((budget.of("a", at(100)), budget.of("b", at(100))), (0, 2));
        assert_eq!((budget.of("a", at(109)), budget.of("a", at(110)), budget.of("a", at(120))), (0, 1, 2));
        budget.spend("a", 1, at(110));
        assert_eq!((budget.of("a", at(110)), budget.of("a", at(120)), budget.of("a", at(1000))), (0, 1, 2));
    }
}
