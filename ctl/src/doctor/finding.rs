//! A finding: one line of the doctor, with its reason and its fixes.

use std::fmt::{self, Display};

use serde_json::{Value, json};

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// No problem.
    Ok,
    /// It works now, and may fail later.
    Warn,
    /// Pods are affected, or will be.
    Fail,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        }
    }
}

/// What was found, why it matters, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(super) severity: Severity,
    /// The name of the check.
    check: &'static str,
    seen: String,
    why: Option<String>,
    /// Commands, or advice if no command can fix it.
    fixes: Vec<String>,
}

/// A count with its noun: `1 pod`, `2 pods`.
pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The first names of a list, and the number of the others.
pub(super) fn shortened(names: &[impl AsRef<str>]) -> String {
    const MAX_NAMED: usize = 3;
    let mut shown: Vec<String> = names.iter().take(MAX_NAMED).map(|name| name.as_ref().to_owned()).collect();
    if names.len() > MAX_NAMED {
        shown.push(format!("{} more", names.len() - MAX_NAMED));
    }
    shown.join(", ")
}

impl Finding {
    /// No problem.
    pub(super) fn ok(check: &'static str, seen: impl Display) -> Finding {
        Finding { severity: Severity::Ok, check, seen: seen.to_string(), why: None, fixes: Vec::new() }
    }

    /// A warning.
    pub(super) fn warn(check: &'static str, seen: impl Display, why: impl Display) -> Finding {
        Finding { severity: Severity::Warn, why: Some(why.to_string()), ..Finding::ok(check, seen) }
    }

    /// A failure.
    pub(super) fn fail(check: &'static str, seen: impl Display, why: impl Display) -> Finding {
        Finding { severity: Severity::Fail, ..Finding::warn(check, seen, why) }
    }

    /// Adds a command or advice that fixes it.
    pub(super) fn fix(mut self, command: impl Display) -> Finding {
        self.fixes.push(command.to_string());
        self
    }

    /// For `-o json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"check": self.check, "verdict": self.severity.name(), "seen": self.seen, "why": self.why,
            "fix": self.fixes})
    }
}

/// An error may have several lines. None of them looks like the first line of a finding.
fn indented(text: &str) -> String {
    text.replace('\n', "\n      ")
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4}  {:13} {}", self.severity.name(), self.check, indented(&self.seen))?;
        if let Some(why) = &self.why {
            write!(f, "\n      why: {}", indented(why))?;
        }
        self.fixes.iter().try_for_each(|command| write!(f, "\n      fix: {command}"))
    }
}
