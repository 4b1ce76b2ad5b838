//! The JSON objects of the store and of the node's files: how their keys are read, and what is wrong with one
//! that cannot be read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::block::VERSION;
use crate::name::Name;
use crate::runs::Runs;

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// It is JSON, but no object.
    #[error("{0} is not a JSON object")]
    Form(String),
    /// Another release wrote it. A newer one may mean something else by the keys, so this release leaves the
    /// value as it is.
    #[error("v: {0} is not {VERSION}, the version that this release reads")]
    Version(u64),
    /// A key is missing.
    #[error("{key} is missing: must be {right}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What its value must be.
        right: String,
    },
    /// A key has a wrong value.
    #[error("{key}: {value} is not {right}")]
    Wrong {
        /// The key.
        key: &'static str,
        /// The value, or the part of it that is wrong.
        value: String,
        /// What it must be.
        right: String,
    },
    /// The checksum does not fit the rest.
    #[error("check: {found} is not {right}, the checksum of the rest: the file is torn, or was edited")]
    Check {
        /// The checksum in the file.
        found: String,
        /// The checksum of the rest of it.
        right: String,
    },
}

/// Epochs end here, so that the next one is a number too.
const LAST_EPOCH: u64 = i32::MAX as u64;
/// Other numbers end here: every reader of JSON reads them without loss.
const LAST_NUMBER: u64 = (1 << 53) - 1;
/// A year. Sums of a few such times are times too.
const LONGEST_TIME: u64 = 365 * 24 * 3600;
/// How much of a wrong value an error shows.
const SHOWN: usize = 100;

/// The object of a value, for its keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a>(&'a Map<String, Value>);

/// Reads a value from its bytes.
pub(crate) fn parse<T>(
    bytes: &[u8],
    read: impl FnOnce(&Value) -> Result<T, Unreadable>,
) -> Result<T, Unreadable> {
    let value = serde_json::from_slice(bytes).map_err(|error| Unreadable::Json(error.to_string()))?;
    read(&value)
}

/// A part of a value, for an error.
pub(crate) fn shown(value: &Value) -> String {
    value.to_string().chars().take(SHOWN).collect()
}

/// A wrong part of a key's value.
pub(crate) fn wrong(key: &'static str, value: impl ToString, right: impl Into<String>) -> Unreadable {
    Unreadable::Wrong { key, value: value.to_string(), right: right.into() }
}

impl<'a> Object<'a> {
    /// The object, if it has the version that this release reads.
    pub(crate) fn of(value: &'a Value) -> Result<Object<'a>, Unreadable> {
        let object = Object(value.as_object().ok_or_else(|| Unreadable::Form(shown(value)))?);
        match object.number("v", 0..=u64::MAX)? {
            VERSION => Ok(object),
            other => Err(Unreadable::Version(other)),
        }
    }

    /// A key that may be absent.
    pub(crate) fn maybe<T>(
        self,
        key: &'static str,
        right: impl Into<String>,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        let present = self.0.get(key).filter(|value| !value.is_null());
        present.map(|value| read(value).ok_or_else(|| wrong(key, shown(value), right))).transpose()
    }

    /// A key that must be there.
    pub(crate) fn get<T>(
        self,
        key: &'static str,
        right: impl Into<String>,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Unreadable> {
        let right = right.into();
        self.maybe(key, right.clone(), read)?.ok_or(Unreadable::Missing { key, right })
    }

    fn number(self, key: &'static str, range: RangeInclusive<u64>) -> Result<u64, Unreadable> {
        let right = format!("a number from {} to {}", range.start(), range.end());
        self.get(key, right, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    /// A number that is counted up.
    pub(crate) fn count(self, key: &'static str) -> Result<u64, Unreadable> {
        self.number(key, 0..=LAST_NUMBER)
    }

    /// An epoch. The first is 1. A node that has none yet has 0.
    pub(crate) fn epoch(self, first: u32) -> Result<u32, Unreadable> {
        // The range fits.
        Ok(self.number("epoch", first.into()..=LAST_EPOCH)? as u32)
    }

    /// An epoch that may be absent, which is 0.
    pub(crate) fn past_epoch(self, key: &'static str) -> Result<u32, Unreadable> {
        let range = 1..=LAST_EPOCH;
        let right = format!("an epoch from 1 to {LAST_EPOCH}");
        let epoch = self.maybe(key, right, |value| value.as_u64().filter(|epoch| range.contains(epoch)))?;
        Ok(epoch.unwrap_or_default() as u32)
    }

    /// A number that is counted up and may be absent, which is 0.
    pub(crate) fn maybe_count(self, key: &'static str) -> Result<u32, Unreadable> {
        let right = format!("a number from 1 to {}", u32::MAX);
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let found = self.maybe(key, right, |value| number(value).filter(|number| *number > 0))?;
        Ok(found.unwrap_or_default())
    }

    /// A number for each of some names, or nothing.
    pub(crate) fn numbers(self, key: &'static str) -> Result<BTreeMap<Name, u32>, Unreadable> {
        let right = format!("an object of names and numbers from 0 to {}", u32::MAX);
        let entry = |(name, number): (&String, &Value)| {
            Some((Name::new(name).ok()?, u32::try_from(number.as_u64()?).ok()?))
        };
        let found = self.maybe(key, right, |value| value.as_object()?.iter().map(entry).collect())?;
        Ok(found.unwrap_or_default())
    }

    /// A moment in milliseconds.
    pub(crate) fn milliseconds(self, key: &'static str) -> Result<Duration, Unreadable> {
        self.count(key).map(Duration::from_millis)
    }

    /// A time in seconds.
    pub(crate) fn seconds(self, key: &'static str, least: u64) -> Result<Duration, Unreadable> {
        self.maybe_seconds(key, least)?
            .ok_or_else(|| Unreadable::Missing { key, right: right_seconds(least) })
    }

    /// A time in seconds that may be absent.
    pub(crate) fn maybe_seconds(self, key: &'static str, least: u64) -> Result<Option<Duration>, Unreadable> {
        let range = least..=LONGEST_TIME;
        self.maybe(key, right_seconds(least), |value| {
            value.as_u64().filter(|seconds| range.contains(seconds)).map(Duration::from_secs)
        })
    }

    /// A name.
    pub(crate) fn name(self, key: &'static str) -> Result<Name, Unreadable> {
        let right = "a name of letters, digits, -, _ and . that begins with a letter or a digit";
        self.get(key, right, |value| Name::new(value.as_str()?).ok())
    }

    /// A random number that identifies something.
    pub(crate) fn identity(self, key: &'static str) -> Result<String, Unreadable> {
        self.get(key, "32 lower-case hexadecimal digits", |value| {
            value.as_str().filter(|digits| digits.len() == 32 && are_hex(digits)).map(str::to_owned)
        })
    }

    /// A boot's identity, as the kernel writes it.
    pub(crate) fn boot(self) -> Result<String, Unreadable> {
        self.get("boot", "a UUID in lower case", |value| {
            value.as_str().filter(|uuid| is_uuid(uuid)).map(str::to_owned)
        })
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(self, key: &'static str, words: &[(&str, T)]) -> Result<T, Unreadable> {
        let right = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        self.get(key, format!("one of {right}"), |value| {
            words.iter().find(|(word, _)| value.as_str() == Some(word)).map(|(_, meaning)| *meaning)
        })
    }

    /// The elements of a list of strings, each read alone.
    pub(crate) fn list<T>(
        self,
        key: &'static str,
        right: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Unreadable> {
        let list = self.get(key, format!("a list, of which each element is {right}"), Value::as_array)?;
        let element = |value: &Value| value.as_str().and_then(&read).ok_or_else(|| shown(value));
        list.iter().map(element).collect::<Result<_, _>>().map_err(|value| wrong(key, value, right))
    }

    /// A set of addresses.
    pub(crate) fn runs(self, key: &'static str) -> Result<Runs, Unreadable> {
        let mut runs = Runs::default();
        for (first, last) in self.list(key, "an address, or two of one family as FIRST-LAST", run)? {
            runs.insert_run(first, last);
        }
        Ok(runs)
    }
}

fn right_seconds(least: u64) -> String {
    format!("a number of seconds from {least} to {LONGEST_TIME}")
}

/// `ADDRESS` or `FIRST-LAST`.
pub(crate) fn run(run: &str) -> Option<(IpAddr, IpAddr)> {
    let mut runs = Runs::default();
    runs.insert_text(run).ok()?;
    runs.iter_runs().next()
}

fn are_hex(digits: &str) -> bool {
    digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(uuid: &str) -> bool {
    let groups = uuid.split('-');
    groups.clone().all(are_hex) && groups.map(str::len).eq([8, 4, 4, 4, 12])
}
