//! Whether the store answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::registers::StoreError;
use crate::report::Report;

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct Outage {
    away: Option<Away>,
    /// The last answer that could not be used, as it was told.
    unusable: Option<String>,
}

/// A store that does not answer.
#[derive(Debug)]
struct Away {
    since: SystemTime,
    error: String,
}

impl Outage {
    /// Takes note of an answer, or of why there was none. Returns what to tell: the first error, and the end.
    pub(super) fn note<T>(&mut self, outcome: &Result<T, StoreError>) -> Option<Report> {
        match outcome {
            Ok(_) => self.away.take().map(|_| Report::store_answers()),
            Err(StoreError::DocumentChanged) => None,
            // The store has answered.
            Err(error @ (StoreError::Unreadable { .. } | StoreError::NotPermitted { .. })) => {
                let text = error.to_string();
                let is_news = self.unusable.as_ref() != Some(&text);
                let report = is_news.then(|| Report::pool_not_used(&text));
                self.unusable = Some(text);
                report
            }
            Err(error) => {
                let text = error.to_string();
                let away = self.away.take();
                let since = away.as_ref().map_or_else(SystemTime::now, |away| away.since);
                let is_news = away.is_none_or(|away| away.error != text);
                self.away = Some(Away { since, error: text });
                is_news.then(|| Report::store_away(error))
            }
        }
    }
}

impl Outage {
    /// Since when, since 1970, and the error. None if it answers.
    pub(super) fn shown(&self) -> Option<(Duration, String)> {
        let Away { since, error } = self.away.as_ref()?;
        Some((since.duration_since(UNIX_EPOCH).unwrap_or_default(), error.clone()))
    }

    /// Since when and why, in words for an ADD that gets no address. None if it answers.
    pub(super) fn words(&self) -> Option<String> {
        let Away { since, error } = self.away.as_ref()?;
        let seconds = since.elapsed().unwrap_or_default().as_secs();
        Some(format!("the store of pools has not answered for {seconds} s: {error}"))
    }
}
