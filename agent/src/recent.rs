//! The last reports, for those who come later: `vlan-bridgectl status` shows them.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::figures::Figures;
use crate::report::Report;

/// How many are kept.
const MOST: usize = 32;

/// A report that was told, as others read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When, since 1970.
    pub at: Duration,
    /// `notice`, `warning` or `error`.
    pub severity: String,
    /// The word of its [`crate::Reason`].
    pub reason: String,
    /// The text.
    pub text: String,
}

impl Told {
    pub(crate) fn to_json(&self) -> Value {
        let Told { at, severity, reason, text } = self;
        json!({"at": at.as_secs(), "severity": severity, "reason": reason, "text": text})
    }

    pub(crate) fn from_json(value: &Value) -> Option<Told> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let at = Duration::from_secs(value["at"].as_u64()?);
        Some(Told { at, severity: text("severity")?, reason: text("reason")?, text: text("text")? })
    }
}

/// Prints reports, and remembers the last ones.
pub(crate) struct Teller<'a> {
    print: &'a mut dyn FnMut(&Report),
    last: VecDeque<Told>,
    has_news: bool,
    figures: Figures,
}

impl<'a> Teller<'a> {
    /// Has told nothing yet.
    pub(crate) fn new(print: &'a mut dyn FnMut(&Report), figures: Figures) -> Teller<'a> {
        Teller { print, last: VecDeque::new(), has_news: false, figures }
    }

    /// Tells a report.
    pub(crate) fn tell(&mut self, report: &Report) {
        (self.print)(report);
        self.figures.told(report);
        if self.last.len() >= MOST {
            self.last.pop_front();
        }
        let Report { severity, reason, text, .. } = report;
        self.last.push_back(Told {
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            severity: severity.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            text: text.clone(),
        });
        self.has_news = true;
    }

    /// Whether something was told since the last call.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// The last reports, the oldest first.
    pub(crate) fn last(&self) -> Vec<Told> {
        self.last.iter().cloned().collect()
    }
}
