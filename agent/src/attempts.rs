//! How often a thing is restored. A thing that another program keeps changing back is left alone for a while,
//! so that two managers never fight at full speed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vlan_bridge::repairs::Subject;

/// The time since the agent started.
pub(crate) type Time = Duration;

/// How often a thing is restored within [`WINDOW`].
const MOST: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// The first pause. Each further one is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// A thing that stays as it is for this long after a pause starts again with the first pause.
const CALM: Duration = Duration::from_secs(600);

/// The attempts of all things.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    things: BTreeMap<Subject, Thing>,
}

#[derive(Debug, Default)]
struct Thing {
    /// When it was restored, at most [`MOST`] times.
    restored: VecDeque<Time>,
    /// The last pause.
    pause: Duration,
    /// The end of the pause.
    until: Time,
}

impl Attempts {
    /// Notes that a thing was restored. If that was once too often, a pause begins.
    pub(crate) fn note(&mut self, subject: &Subject, now: Time) {
        let thing = self.things.entry(subject.clone()).or_default();
        if now >= thing.until + CALM {
            thing.pause = Duration::ZERO;
        }
        thing.restored.push_back(now);
        thing.restored.retain(|at| *at + WINDOW > now);
        if thing.restored.len() >= MOST {
            thing.restored.clear();
            thing.pause = if thing.pause.is_zero() { FIRST } else { (thing.pause * 2).min(LONGEST) };
            thing.until = now + thing.pause;
        }
        self.things.retain(|_, thing| thing.is_remembered(now));
    }

    /// The things to leave alone now.
    pub(crate) fn blocked(&self, now: Time) -> BTreeSet<Subject> {
        self.things
            .iter()
            .filter(|(_, thing)| thing.until > now)
            .map(|(subject, _)| subject.clone())
            .collect()
    }

    /// The length of a thing's pause. None if it has none now.
    pub(crate) fn pause(&self, subject: &Subject, now: Time) -> Option<Duration> {
        self.things.get(subject).filter(|thing| thing.until > now).map(|thing| thing.pause)
    }

    /// When the next pause ends.
    pub(crate) fn next_end(&self, now: Time) -> Option<Time> {
        self.things.values().map(|thing| thing.until).filter(|until| *until > now).min()
    }
}

impl Thing {
    fn is_remembered(&self, now: Time) -> bool {
        self.until + CALM > now || self.restored.iter().any(|at| *at + WINDOW > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_time_within_a_minute_begins_a_pause_that_grows() {
        let mut attempts = Attempts::default();
        let nat = Subject::Nat;
        for at in [1000, 1010] {
            attempts.note(&nat, seconds(at));
            assert!(attempts.blocked(seconds(at)).is_empty());
        }
        attempts.note(&Subject::Guards, seconds(1011));
        attempts.note(&nat, seconds(1020));
        assert_eq!(attempts.blocked(seconds(1079)), BTreeSet::from([nat.clone()]));
        assert_eq!(attempts.next_end(seconds(1021)), Some(seconds(1080)));
        assert!(attempts.blocked(seconds(1080)).is_empty());
        for at in [1080, 1081, 1082] {
            attempts.note(&nat, seconds(at));
        }
        assert_eq!(attempts.pause(&nat, seconds(1083)), Some(seconds(120)));
        assert_eq!(attempts.pause(&nat, seconds(1202)), None);
    }

    #[test]
    fn three_times_in_a_longer_time_are_restored() {
        let mut attempts = Attempts::default();
        for at in [1000, 1040, 1080, 1120] {
            attempts.note(&Subject::Nat, seconds(at));
            assert!(attempts.blocked(seconds(at)).is_empty(), "{at}");
        }
    }

    #[test]
    fn a_calm_time_ends_the_growth_and_is_forgotten() {
        let mut attempts = Attempts::default();
        for at in [1000, 1001, 1002, 1062, 1063, 1064] {
            attempts.note(&Subject::Nat, seconds(at));
        }
        assert_eq!(attempts.pause(&Subject::Nat, seconds(1065)), Some(seconds(120)));
        attempts.note(&Subject::Guards, seconds(3000));
        assert_eq!(attempts.things.len(), 1);
        for at in [4000, 4001, 4002] {
            attempts.note(&Subject::Nat, seconds(at));
        }
        assert_eq!(attempts.pause(&Subject::Nat, seconds(4003)), Some(seconds(60)));
    }
}
