//! What the agent tells.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use cni_conf::cni::args::PodName;
use cni_conf::cni::mac::MacAddr;
use vlan_bridge::repairs::Subject;
use vlan_bridge_ipam::store::Usage;

use crate::ear::Conflict;
use crate::failover::Failover;
use crate::overheard::{Role, Said, SentBy, Speaker};

/// How much a reader should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The agent works.
    Notice,
    /// Something was different and is restored, or is different and may be right.
    Warning,
    /// Something is different and stays so.
    Error,
}

impl Severity {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What a report is about: one word for programs, which stays the same from version to version. Kubernetes
/// events have it as their reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The agent began.
    Started,
    /// The first pass has ended.
    Looked,
    /// The agent ends.
    Ended,
    /// Something was different and is restored.
    Restored,
    /// Something is different in a dry run.
    Differs,
    /// Something was changed back too often and is left.
    LeftAlone,
    /// Something is different and cannot be restored.
    NotRestored,
    /// A path of the uplink changed, and the pods are announced.
    Failover,
    /// The pods could not be announced.
    NotAnnounced,
    /// Another machine uses a pod's address.
    AddressConflict,
    /// It does so no longer.
    ConflictOver,
    /// A gateway has another MAC.
    GatewayChanged,
    /// Somebody who is not the gateway advertises itself as a router.
    UnknownRouter,
    /// Somebody hands out addresses where no pod asks for one.
    UnknownDhcpServer,
    /// A network has no free address.
    AddressesExhausted,
    /// Addresses cannot be kept ready.
    NotReady,
    /// The agent could not tell that it works.
    NoSign,
    /// A network cannot use its pool.
    PoolNotUsed,
    /// The store of pools does not answer.
    PoolStoreAway,
    /// It answers again.
    PoolStoreAnswers,
    /// A pool has no free address.
    AddressPoolDry,
    /// The store of a pool went back to an older state.
    PoolRestored,
    /// Pods use addresses that the pool grants to others.
    AddressFenced,
    /// Another machine has this node's name in the store of pools.
    TwoMachinesOneName,
}

impl Reason {
    /// All reasons. Counters of them begin with 0.
    pub const ALL: [Reason; 24] = [
        Reason::Started,
        Reason::Looked,
        Reason::Ended,
        Reason::Restored,
        Reason::Differs,
        Reason::LeftAlone,
        Reason::NotRestored,
        Reason::Failover,
        Reason::NotAnnounced,
        Reason::AddressConflict,
        Reason::ConflictOver,
        Reason::GatewayChanged,
        Reason::UnknownRouter,
        Reason::UnknownDhcpServer,
        Reason::AddressesExhausted,
        Reason::NotReady,
        Reason::NoSign,
        Reason::PoolNotUsed,
        Reason::PoolStoreAway,
        Reason::PoolStoreAnswers,
        Reason::AddressPoolDry,
        Reason::PoolRestored,
        Reason::AddressFenced,
        Reason::TwoMachinesOneName,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Started => "Started",
            Reason::Looked => "Looked",
            Reason::Ended => "Ended",
            Reason::Restored => "Restored",
            Reason::Differs => "Differs",
            Reason::LeftAlone => "LeftAlone",
            Reason::NotRestored => "NotRestored",
            Reason::Failover => "Failover",
            Reason::NotAnnounced => "NotAnnounced",
            Reason::AddressConflict => "AddressConflict",
            Reason::ConflictOver => "ConflictOver",
            Reason::GatewayChanged => "GatewayChanged",
            Reason::UnknownRouter => "UnknownRouter",
            Reason::UnknownDhcpServer => "UnknownDhcpServer",
            Reason::AddressesExhausted => "AddressesExhausted",
            Reason::NotReady => "NotReady",
            Reason::NoSign => "NoSign",
            Reason::PoolNotUsed => "PoolNotUsed",
            Reason::PoolStoreAway => "PoolStoreAway",
            Reason::PoolStoreAnswers => "PoolStoreAnswers",
            Reason::AddressPoolDry => "AddressPoolDry",
            Reason::PoolRestored => "PoolRestored",
            Reason::AddressFenced => "AddressFenced",
            Reason::TwoMachinesOneName => "TwoMachinesOneName",
        }
    }
}

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How much a reader should care.
    pub severity: Severity,
    /// What it is about.
    pub reason: Reason,
    /// The pod that it concerns, if it is one and its name is known.
    pub pod: Option<PodName>,
    /// The text.
    pub text: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Report {
    pub(crate) fn new(severity: Severity, reason: Reason, text: String) -> Report {
        Report { severity, reason, pod: None, text }
    }

    pub(crate) fn started(dry_run: bool) -> Report {
        let how = if dry_run { "reports what differs, and changes nothing" } else { "watches the node" };
        Report::new(
            Severity::Notice,
            Reason::Started,
            format!("version {}: {how}", env!("CARGO_PKG_VERSION")),
        )
    }

    pub(crate) fn looked(took: Duration) -> Report {
        let text = format!("has looked at the node for the first time, in {} ms", took.as_millis());
        Report::new(Severity::Notice, Reason::Looked, text)
    }

    pub(crate) fn announces(failover: &Failover, addresses: usize) -> Report {
        let Failover { bridge, uplink, cause } = failover;
        let text = format!("{cause}: announces {addresses} addresses of pods of {bridge} on {uplink}");
        Report::new(Severity::Warning, Reason::Failover, text)
    }

    pub(crate) fn would_announce(failover: &Failover) -> Report {
        let Failover { bridge, uplink, cause } = failover;
        let text = format!("{cause}: would announce the pods of {bridge} on {uplink}");
        Report::new(Severity::Warning, Reason::Failover, text)
    }

    pub(crate) fn conflict(conflict: &Conflict) -> Report {
        let Conflict { uplink, address, pod, other, name, .. } = conflict;
        let whose = name.as_ref().map_or("a pod".to_owned(), |name| format!("pod {name}"));
        let text = format!("conflict: {other} on {uplink} uses {address}, which is {whose}'s with MAC {pod}");
        Report { pod: name.clone(), ..Report::new(Severity::Error, Reason::AddressConflict, text) }
    }

    pub(crate) fn many_conflicts(most: usize) -> Report {
        let text = format!("conflict: more than {most} addresses of pods are used by other machines");
        Report::new(Severity::Error, Reason::AddressConflict, text)
    }

    pub(crate) fn conflict_over(conflict: &Conflict) -> Report {
        let Conflict { address, other, name, .. } = conflict;
        let text = format!("conflict over: {other} was not heard to use {address} for a minute");
        Report { pod: name.clone(), ..Report::new(Severity::Notice, Reason::ConflictOver, text) }
    }

    pub(crate) fn gateway_changed(
        place: (&str, Option<u16>),
        gateway: IpAddr,
        [before, now]: [MacAddr; 2],
        sender: &SentBy,
    ) -> Report {
        let whose = if *sender == SentBy::Other { String::new() } else { format!(", of {sender}") };
        let text = format!("gateway {gateway} on {}: its MAC was {before}, and is {now}{whose}", On(place));
        Report { pod: sender.pod(), ..Report::new(Severity::Warning, Reason::GatewayChanged, text) }
    }

    pub(crate) fn stranger(
        place: (&str, Option<u16>),
        speaker: &Speaker,
        said: &Said,
        sender: &SentBy,
    ) -> Report {
        let (reason, what) = match speaker.role {
            Role::Router => (Reason::UnknownRouter, "router advertisement, which is not the gateway's,"),
            Role::DhcpServer => (Reason::UnknownDhcpServer, "answer of a DHCP server"),
        };
        let Speaker { mac, .. } = speaker;
        let text = format!("{what} on {}: {} with MAC {mac}, by {sender}", On(place), said.address);
        Report { pod: sender.pod(), ..Report::new(Severity::Error, reason, text) }
    }

    pub(crate) fn many_strangers(most: usize) -> Report {
        let text = format!("more than {most} machines advertise themselves as routers or DHCP servers");
        Report::new(Severity::Error, Reason::UnknownRouter, text)
    }

    pub(crate) fn exhausted(network: &str, ranges: &[Usage]) -> Report {
        let ranges: Vec<String> = ranges.iter().map(Usage::to_string).collect();
        let text = format!("network {network}: no address is free: {}", ranges.join("; "));
        Report::new(Severity::Error, Reason::AddressesExhausted, text)
    }

    pub(crate) fn not_ready(network: &str, error: &str) -> Report {
        let text = format!("network {network}: addresses are not kept ready for ADD: {error}");
        Report::new(Severity::Error, Reason::NotReady, text)
    }

    pub(crate) fn not_announced(error: &dyn fmt::Display) -> Report {
        Report::new(Severity::Error, Reason::NotAnnounced, format!("pods could not be announced: {error}"))
    }

    pub(crate) fn no_sign(error: &dyn fmt::Display) -> Report {
        Report::new(Severity::Error, Reason::NoSign, format!("no sign of life could be given: {error}"))
    }

    pub(crate) fn ended() -> Report {
        Report::new(Severity::Notice, Reason::Ended, "ended: everything stays as it is".into())
    }

    pub(crate) fn restored(subject: &Subject, differences: &[&str], culprit: Option<&str>) -> Report {
        let text = format!("restored {subject}: {}{}", Listed(differences), By(culprit));
        Report::new(Severity::Warning, Reason::Restored, text)
    }

    pub(crate) fn differs(subject: &Subject, differences: &[&str]) -> Report {
        Report::new(Severity::Error, Reason::Differs, format!("{subject}: differs: {}", Listed(differences)))
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
        Report::new(Severity::Error, Reason::LeftAlone, text)
    }

    pub(crate) fn failed(subject: &Subject, error: &str) -> Report {
        Report::new(Severity::Error, Reason::NotRestored, format!("{subject}: not restored: {error}"))
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

/// The bridge's port, and the VLAN if frames are tagged there.
struct On<'a>((&'a str, Option<u16>));

impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uplink, vlan) = self.0;
        f.write_str(uplink)?;
        vlan.map_or(Ok(()), |vlan| write!(f, " in VLAN {vlan}"))
    }
}

/// The program that changed something, if it is known.
struct By<'a>(Option<&'a str>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |culprit| write!(f, " (by {culprit})"))
    }
}
