//! Counts calls of the plugin: `/run/vlan-bridge/agent/NODE/calls-1`. The agent makes the file if it is asked
//! for metrics. Without the file, a call counts nothing.
//!
//! A call that is killed is not counted. Neither is one that could not have its file: counting must not fail
//! a call.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_skel::Ended;
use kernel::counters::Counters;

use crate::agent_lock::AgentLock;

/// Another layout needs another name: an earlier and a later release may count at the same time.
const FILE: &str = "calls-1";
const DRAFT: &str = ".calls-1";

/// The verbs, in the order of the file. A `CNI_COMMAND` that is no verb counts as none of them.
const VERBS: [Option<Command>; 7] = [
    Some(Command::Add),
    Some(Command::Del),
    Some(Command::Check),
    Some(Command::Gc),
    Some(Command::Status),
    Some(Command::Version),
    None,
];

/// The names of the error numbers, in the order of the file.
const ERRORS: [(u32, &str); 19] = [
    (code::INCOMPATIBLE_VERSION, "incompatible-version"),
    (code::UNSUPPORTED_FIELD, "unsupported-field"),
    (code::UNKNOWN_CONTAINER, "unknown-container"),
    (code::INVALID_ENVIRONMENT, "invalid-environment"),
    (code::IO_FAILURE, "io-failure"),
    (code::DECODING_FAILURE, "decoding-failure"),
    (code::INVALID_CONFIG, "invalid-config"),
    (code::INVALID_NETNS, "invalid-netns"),
    (code::TRY_AGAIN_LATER, "try-again-later"),
    (code::PLUGIN_NOT_AVAILABLE, "plugin-not-available"),
    (code::LIMITED_CONNECTIVITY, "limited-connectivity"),
    (code::INTERFACE_EXISTS, "interface-exists"),
    (code::CHECK_FAILED, "check-failed"),
    (code::KERNEL_REFUSED, "kernel-refused"),
    (code::DELEGATE_FAILED, "delegate-failed"),
    (code::PORT_TAKEN, "port-taken"),
    (code::MAC_TAKEN, "mac-taken"),
    (code::ALREADY_ALLOCATED, "already-allocated"),
    (code::ADDRESS_UNAVAILABLE, "address-unavailable"),
];
/// The outcomes before and after those of [`ERRORS`].
const OK: &str = "ok";
const DEFECT: &str = "internal";
const OTHER: &str = "other";
const OUTCOMES: usize = ERRORS.len() + 3;

/// The upper bounds of the durations' classes, in milliseconds. The last class has no bound.
const BOUNDS: [u64; 15] = [1, 2, 3, 5, 10, 20, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];
const CLASSES: usize = BOUNDS.len() + 1;

/// The counters of a verb: its outcomes, its durations' classes, and the sum of its durations.
const OF_A_VERB: usize = OUTCOMES + CLASSES + 1;
const _: () = assert!(VERBS.len() * OF_A_VERB <= Counters::COUNT);

/// Counts a call that has ended.
pub fn count(ended: &Ended) {
    let Ok(path) = path() else { return };
    let Ok(counters) = Counters::open(&path) else { return };
    let first = VERBS.iter().position(|verb| *verb == ended.command).unwrap_or_default() * OF_A_VERB;
    counters.add(first + outcome(ended.error), 1);
    counters.add(first + OUTCOMES + class(ended.took), 1);
    counters.add(first + OUTCOMES + CLASSES, u64::try_from(ended.took.as_nanos()).unwrap_or(u64::MAX));
}

fn outcome(error: Option<u32>) -> usize {
    match error {
        None => 0,
        Some(code::INTERNAL) => OUTCOMES - 2,
        Some(number) => {
            ERRORS.iter().position(|(known, _)| *known == number).map_or(OUTCOMES - 1, |at| at + 1)
        }
    }
}

fn class(took: Duration) -> usize {
    BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound)).unwrap_or(BOUNDS.len())
}

/// The node's counters, for a reader.
#[derive(Debug)]
pub struct Calls {
    path: PathBuf,
}

/// The calls of a verb.
#[derive(Clone, Debug, PartialEq)]
pub struct VerbCalls {
    /// The verb, or `other`.
    pub verb: &'static str,
    /// The outcomes: `ok`, or the name of an error number, or `other` for a number of another plugin.
    pub outcomes: Vec<(&'static str, u64)>,
    /// How many calls took so long at most, and longer than the class before. The last class has no bound.
    pub classes: Vec<(Duration, u64)>,
    /// The durations of all calls together.
    pub sum: Duration,
}

impl Calls {
    /// The counters that are there, else new ones. From then on, calls are counted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep() -> Result<Calls, CniError> {
        let calls = Calls { path: path()? };
        calls.counters().map_err(|e| failed("write", &calls.path, &e))?;
        Ok(calls)
    }

    /// The counters. A file that is gone or damaged is made again, with 0 in each.
    fn counters(&self) -> io::Result<Vec<u64>> {
        Counters::read(&self.path).or_else(|_| {
            Counters::make(&self.path, &self.path.with_file_name(DRAFT))?;
            Counters::read(&self.path)
        })
    }

    /// Removes the counters. From then on, calls are not counted.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget() -> Result<(), CniError> {
        let path = path()?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", &path, &e)),
            _ => Ok(()),
        }
    }

    /// The counters of each verb. All are 0 if the file cannot be had.
    pub fn read(&self) -> Vec<VerbCalls> {
        let counters = self.counters().unwrap_or_default();
        let names = [OK].into_iter().chain(ERRORS.map(|(_, name)| name)).chain([DEFECT, OTHER]);
        let names: Vec<&'static str> = names.collect();
        let bounds: Vec<Duration> =
            BOUNDS.map(Duration::from_millis).into_iter().chain([Duration::MAX]).collect();
        let verbs = VERBS.iter().enumerate();
        verbs
            .map(|(at, verb)| {
                let first = at * OF_A_VERB;
                let get = |at: usize| counters.get(first + at).copied().unwrap_or_default();
                let outcomes = names.iter().enumerate().map(|(at, name)| (*name, get(at)));
                let classes = bounds.iter().enumerate().map(|(at, bound)| (*bound, get(OUTCOMES + at)));
                VerbCalls {
                    verb: verb.map_or(OTHER, Command::as_str),
                    outcomes: outcomes.collect(),
                    classes: classes.collect(),
                    sum: Duration::from_nanos(get(OUTCOMES + CLASSES)),
                }
            })
            .collect()
    }
}

fn path() -> Result<PathBuf, CniError> {
    Ok(AgentLock::folder()?.join(FILE))
}

fn failed(what: &str, path: &std::path::Path, error: &io::Error) -> CniError {
    CniError::new(code::IO_FAILURE, format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_and_each_duration_has_a_counter() {
        assert_eq!([None, Some(1), Some(111), Some(999), Some(7777)].map(outcome), [0, 1, 19, 20, 21]);
        assert_eq!(OUTCOMES, 22);
        let times = [0, 1000, 1001, 30_000_000, 30_000_001].map(Duration::from_micros);
        assert_eq!(times.map(class), [0, 0, 1, 14, 15]);
    }
}
