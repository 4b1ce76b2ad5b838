//! When the addresses of a lost node become suspect.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::Name;
use crate::plan::Lost;
use crate::register::{Register, State};
use crate::rules::{Rule, Rules};

/// Which nodes this agent knows to be lost, and since when. It waits by its own time since boot and from
/// when it saw the mark itself. An agent that starts waits the whole time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Suspicion {
    /// For each node: the last epoch that it does not live under, and since when that is known.
    seen: BTreeMap<Name, (u32, Duration)>,
    rules: Rules,
}

impl Suspicion {
    #[cfg(test)]
    pub(crate) fn under(rules: Rules) -> Suspicion {
        Suspicion { rules, ..Suspicion::default() }
    }

    /// Takes note of a node's register, read at `now` (time since boot) because an address is held under
    /// `epoch`. What is lost and has waited long enough is returned.
    pub fn judge(
        &mut self,
        node: &Name,
        register: &Register,
        epoch: u32,
        now: Duration,
        wait: Duration,
    ) -> Option<Lost> {
        if register.epoch < epoch || register.lives(epoch) {
            // An older epoch than the address's: a store that went back. That is no evidence.
            return None;
        }
        // The register may be live again under a later epoch. All before that are lost.
        let last = if register.state == State::Live { register.epoch - 1 } else { register.epoch };
        let since = match self.seen.get(node) {
            Some((seen, since)) if *seen >= epoch => *since,
            _ => {
                self.seen.insert(node.clone(), (last, now));
                now
            }
        };
        let last = self.seen.get(node).map_or(last, |(seen, _)| *seen);
        let waited = now.saturating_sub(since) >= wait || !self.rules.hold(Rule::Wait);
        let home = matches!(register.state, State::Gone { .. });
        waited.then(|| Lost { node: node.clone(), epoch: last, home })
    }
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

    const SECOND: Duration = Duration::from_secs(1);

    fn register(epoch: u32, state: State) -> Register {
        Register { instance: "i".into(), boot: "b".into(), epoch, seq: 1, state }
    }

    fn lost() -> State {
        State::Lost { by: Name::new("b").unwrap() }
    }

    #[test]
    fn the_wait_begins_when_the_mark_is_seen() {
        let (mut suspicion, a) = (Suspicion::default(), Name::new("a").unwrap());
        let mut judge = |register: &Register, epoch: u32, now: u32| {
            suspicion.judge(&a, register, epoch, now * SECOND, 10 * SECOND).map(|lost| lost.epoch)
        };
        assert_eq!(judge(&register(1, State::Live), 1, 0), None);
        assert_eq!(judge(&register(1, lost()), 1, 5), None);
        assert_eq!(judge(&register(1, lost()), 1, 14), None);
        assert_eq!(judge(&register(1, lost()), 1, 15), Some(1));
        // The node is back. What it has not taken up again stays lost; a later epoch has a wait of its own.
        assert_eq!(judge(&register(2, State::Live), 2, 16), None);
        assert_eq!(judge(&register(2, State::Live), 1, 16), Some(1));
        assert_eq!(judge(&register(2, lost()), 2, 20), None);
        assert_eq!(judge(&register(2, lost()), 2, 30), Some(2));
        assert_eq!(judge(&register(1, lost()), 2, 40), None, "a store that went back is no evidence");
    }
}
