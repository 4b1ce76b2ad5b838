//! What the agent tells.

use std::fmt;
use std::time::Duration;

use vlan_bridge::repairs::Subject;

use crate::ear::Conflict;
use crate::failover::Failover;

/// How much a reader should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The agent works.
    Notice,
    /// Something was different and is restored.
    Warning,
    /// Something is different and stays so.
    Error,
}

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How much a reader should care.
    pub severity: Severity,
    /// The text.
    pub text: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Report {
    pub(crate) fn started(dry_run: bool) -> Report {
        let how = if dry_run { "reports what differs, and changes nothing" } else { "watches the node" };
        Report { severity: Severity::Notice, text: format!("version {}: {how}", env!("CARGO_PKG_VERSION")) }
    }

    pub(crate) fn looked(took: Duration) -> Report {
        let text = format!("has looked at the node for the first time, in {} ms", took.as_millis());
        Report { severity: Severity::Notice, text }
    }

    pub(crate) fn announces(failover: &Failover, addresses: usize) -> Report {
        let Failover { bridge, uplink, cause } = failover;
        let text = format!("{cause}: announces {addresses} addresses of pods of {bridge} on {uplink}");
        Report { severity: Severity::Warning, text }
    }

    pub(crate) fn would_announce(failover: &Failover) -> Report {
        let Failover { bridge, uplink, cause } = failover;
        let text = format!("{cause}: would announce the pods of {bridge} on {uplink}");
        Report { severity: Severity::Warning, text }
    }

    pub(crate) fn conflict(conflict: &Conflict) -> Report {
        let Conflict { uplink, address, pod, other, .. } = conflict;
        let text = format!("conflict: {other} on {uplink} uses {address}, which is a pod's with MAC {pod}");
        Report { severity: Severity::Error, text }
    }

    pub(crate) fn many_conflicts(most: usize) -> Report {
        let text = format!("conflict: more than {most} addresses of pods are used by other machines");
        Report { severity: Severity::Error, text }
    }

    pub(crate) fn conflict_over(conflict: &Conflict) -> Report {
        let Conflict { address, other, .. } = conflict;
        let text = format!("conflict over: {other} was not heard to use {address} for a minute");
        Report { severity: Severity::Notice, text }
    }

    pub(crate) fn not_ready(network: &str, error: &str) -> Report {
        let text = format!("network {network}: addresses are not kept ready for ADD: {error}");
        Report { severity: Severity::Error, text }
    }

    pub(crate) fn not_announced(error: &dyn fmt::Display) -> Report {
        Report { severity: Severity::Error, text: format!("pods could not be announced: {error}") }
    }

    pub(crate) fn no_sign(error: &dyn fmt::Display) -> Report {
        Report { severity: Severity::Error, text: format!("no sign of life could be given: {error}") }
    }

    pub(crate) fn ended() -> Report {
        Report { severity: Severity::Notice, text: "ended: everything stays as it is".into() }
    }

    pub(crate) fn restored(subject: &Subject, differences: &[&str], culprit: Option<&str>) -> Report {
        let text = format!("restored {subject}: {}{}", Listed(differences), By(culprit));
        Report { severity: Severity::Warning, text }
    }

    pub(crate) fn differs(subject: &Subject, differences: &[&str]) -> Report {
        Report { severity: Severity::Error, text: format!("{subject}: differs: {}", Listed(differences)) }
    }

    pub(crate) fn left(
        subject: &Subject,
        differences: &[&str],
        pause: Duration,
        culprit: Option<&str>,
    ) -> Report {
        let text = format!(
            "{subject}: changed again{} three times within a minute: left alone for {} s: {}",
            By(culprit),
            pause.as_secs(),
            Listed(differences)
        );
        Report { severity: Severity::Error, text }
    }

    pub(crate) fn failed(subject: &Subject, error: &str) -> Report {
        Report { severity: Severity::Error, text: format!("{subject}: not restored: {error}") }
    }
}

/// The first differences, and how many more there are.
struct Listed<'a>(&'a [&'a str]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let shown: Vec<&str> = self.0.iter().take(SHOWN).copied().collect();
        f.write_str(&shown.join("; "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// The program that changed something, if it is known.
struct By<'a>(Option<&'a str>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |culprit| write!(f, " (by {culprit})"))
    }
}
