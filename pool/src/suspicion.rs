//! When the addresses of a lost node become suspect.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::Name;
use crate::plan::Lost;
use crate::register::Register;
use crate::rules::{Rule, Rules};

/// Which nodes this agent knows to be lost, and since when. It waits by its own time since boot and from
/// when it saw the mark itself. An agent that starts waits the whole time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Suspicion {
    /// For each node: the last epoch that was lost, and since when that is known.
    seen: BTreeMap<Name, (u32, Duration)>,
    rules: Rules,
}

impl Suspicion {
    #[cfg(test)]
    pub(crate) fn under(rules: Rules) -> Suspicion {
        Suspicion { rules, ..Suspicion::default() }
    }

    /// Takes note of a node's register, read at `now` (time since boot) because an address is held under
    /// `epoch`. What is lost and has waited long enough is returned. `margin` is the longest time of an ADD.
    pub fn judge(
        &mut self,
        node: &Name,
        register: &Register,
        epoch: u32,
        now: Duration,
        margin: Duration,
    ) -> Option<Lost> {
        let last = register.last_lost();
        if self.seen.get(node).is_some_and(|(seen, _)| *seen != last) {
            // Another epoch was lost, or the store went back to a time before the mark.
            self.seen.remove(node);
        }
        if epoch > last {
            return None;
        }
        let (_, since) = *self.seen.entry(node.clone()).or_insert((last, now));
        let waited = now.saturating_sub(since) >= wait(register.give_for, margin);
        let lost = Lost { node: node.clone(), epoch: last, gone: register.last_gone() };
        (waited || !self.rules.hold(Rule::Wait)).then_some(lost)
    }
}

/// How long after a node's epoch was found lost its addresses become suspect: as long as the node may have
/// gone on giving, and an ADD may have taken, and a thirty-second more, because the clocks of two machines
/// may run 1 % fast and slow. A node that gives without end is called lost only when it is off.
fn wait(give_for: Option<Duration>, margin: Duration) -> Duration {
    give_for.map_or(Duration::ZERO, |give_for| (give_for + margin) + (give_for + margin) / 32)
}

#[cfg(test)]
impl Suspicion {
    /// Shows the times to the search, which counts them from now.
    pub(crate) fn times(&mut self) -> impl Iterator<Item = &mut Duration> {
        self.seen.values_mut().map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::State;

    const SECOND: Duration = Duration::from_secs(1);

    fn register(epoch: u32, lost: u32) -> Register {
        let state = State::Lost { by: Name::new("b").unwrap() };
        let state = if lost == epoch { state } else { State::Live };
        let (instance, boot, give_for) = ("i".into(), "b".into(), Some(24 * SECOND));
        Register { instance, boot, epoch, seq: 1, state, lost, gone: 0, give_for, pools: [].into() }
    }

    #[test]
    fn the_wait_begins_when_the_mark_is_seen() {
        let (mut suspicion, a) = (Suspicion::default(), Name::new("a").unwrap());
        let mut judge = |register: &Register, epoch: u32, now: u32| {
            suspicion.judge(&a, register, epoch, now * SECOND, 8 * SECOND).map(|lost| lost.epoch)
        };
        assert_eq!(judge(&register(1, 0), 1, 0), None);
        assert_eq!(judge(&register(1, 1), 1, 5), None);
        assert_eq!(judge(&register(1, 1), 1, 37), None, "24 and 8 seconds, and one for the clocks");
        assert_eq!(judge(&register(1, 1), 1, 38), Some(1));
        // The node is back. What it has not taken up again stays lost.
        assert_eq!(judge(&register(2, 1), 2, 39), None);
        assert_eq!(judge(&register(2, 1), 1, 39), Some(1));
        assert_eq!(judge(&register(2, 2), 2, 40), None);
        assert_eq!(judge(&register(2, 2), 2, 73), Some(2));
        // A node that registered again by itself was never lost.
        assert_eq!(judge(&register(4, 2), 3, 80), None);
    }

    #[test]
    fn a_store_that_went_back_before_the_mark_makes_the_wait_begin_again() {
        let (mut suspicion, a) = (Suspicion::default(), Name::new("a").unwrap());
        let mut judge = |register: &Register, now: u32| {
            suspicion.judge(&a, register, 1, now * SECOND, 8 * SECOND).is_some()
        };
        assert!(!judge(&register(1, 1), 0) && judge(&register(1, 1), 40));
        assert!(!judge(&register(1, 0), 41) && !judge(&register(1, 1), 42) && judge(&register(1, 1), 75));
    }
}
