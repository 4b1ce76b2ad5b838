//! Whether the store answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::registers::StoreError;
use crate::report::Report;

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Away>);

/// A store that does not answer.
#[derive(Debug)]
struct Away {
    since: SystemTime,
    error: String,
}

impl Outage {
    /// Takes note of an answer, or of why there was none. Returns what to tell: the first error, and the end.
    pub(super) fn note<T>(&mut self, outcome: &Result<T, StoreError>) -> Option<Report> {
        match (outcome, &mut self.0) {
            (Ok(_), None) => None,
            (Ok(_), Some(_)) => {
                self.0 = None;
                Some(Report::store_answers())
            }
            // The store has answered.
            (Err(StoreError::DocumentChanged), _) => None,
            (Err(error), away) => {
                let text = error.to_string();
                let since = away.as_ref().map_or_else(SystemTime::now, |away| away.since);
                let is_news = away.as_ref().is_none_or(|away| away.error != text);
                *away = Some(Away { since, error: text });
                is_news.then(|| Report::store_away(error))
            }
        }
    }
}

impl Outage {
    /// Since when, since 1970, and the error. None if it answers.
    pub(super) fn shown(&self) -> Option<(Duration, String)> {
        let Away { since, error } = self.0.as_ref()?;
        Some((since.duration_since(UNIX_EPOCH).unwrap_or_default(), error.clone()))
    }

    /// Since when and why, in words for an ADD that gets no address. None if it answers.
    pub(super) fn words(&self) -> Option<String> {
        let Away { since, error } = self.0.as_ref()?;
        let seconds = since.elapsed().unwrap_or_default().as_secs();
        Some(format!("the store of pools has not answered for {seconds} s: {error}"))
    }
}
