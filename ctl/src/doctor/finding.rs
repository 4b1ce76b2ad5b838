//! One line of the doctor.

use std::fmt::{self, Display};

use serde_json::{Value, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody will be sorry.
    Warn,
    /// Pods suffer, or will.
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// What was seen, why it matters, and what fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(super) verdict: Verdict,
    /// Which check says so, in one word.
    check: &'static str,
    seen: String,
    why: Option<String>,
    /// Commands, or what to do where no command can.
    fixes: Vec<String>,
}

/// A number of things: `1 pod`, `2 pods`.
pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The first names of a list, and how many more there are.
pub(super) fn shortened(names: &[impl AsRef<str>]) -> String {
    const NAMED: usize = 3;
    let mut told: Vec<String> = names.iter().take(NAMED).map(|name| name.as_ref().to_owned()).collect();
    if names.len() > NAMED {
        told.push(format!("{} more", names.len() - NAMED));
    }
    told.join(", ")
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: &'static str, seen: impl Display) -> Finding {
        Finding { verdict: Verdict::Ok, check, seen: seen.to_string(), why: None, fixes: Vec::new() }
    }

    /// A warning.
    pub(super) fn warn(check: &'static str, seen: impl Display, why: impl Display) -> Finding {
        Finding { verdict: Verdict::Warn, why: Some(why.to_string()), ..Finding::ok(check, seen) }
    }

    /// A failure.
    pub(super) fn fail(check: &'static str, seen: impl Display, why: impl Display) -> Finding {
        Finding { verdict: Verdict::Fail, ..Finding::warn(check, seen, why) }
    }

    /// The same with a command, or advice, that fixes it.
    pub(super) fn fix(mut self, command: impl Display) -> Finding {
        self.fixes.push(command.to_string());
        self
    }

    /// For `-o json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"check": self.check, "verdict": self.verdict.name(), "seen": self.seen, "why": self.why,
            "fix": self.fixes})
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4}  {:13} {}", self.verdict.name(), self.check, self.seen)?;
        if let Some(why) = &self.why {
            write!(f, "\n      why: {why}")?;
        }
        self.fixes.iter().try_for_each(|command| write!(f, "\n      fix: {command}"))
    }
}
