//! The agent's decisions: when to look at the node, what to leave alone, and what to tell. Pure: time and
//! events go in, actions come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel::monitor::Announcement;
use vlan_bridge::repairs::Subject;
use vlan_bridge::watched::Watched;

use crate::attempts::{Attempts, Time};
use crate::failover::{Failover, Paths};
use crate::interest;
use crate::keeper::{self, Looked};
use crate::report::Report;

/// The pause between an announcement and the pass: a program makes several changes at once.
const SETTLE: Duration = Duration::from_millis(50);
/// In the long run a pass is paid with this many times its length, so that passes take a tenth of a CPU at
/// most, however much is announced.
const PRICE: u32 = 10;
/// How much may be owed when a pass begins. So a change that follows a pass is not restored late.
const CREDIT: Duration = Duration::from_secs(10);
/// The time to the next pass if nothing is announced, for what the kernel does not announce. Nodes that
/// started together spread over a tenth of it.
const FULL_LOOK: Duration = Duration::from_secs(60);
/// How long a program counts as the one that changed what a pass finds different.
const CULPRIT_FOR: Duration = Duration::from_secs(2);
/// Programs of ours, and the thread that makes passes, by their names (`comm`), which are 15 bytes long at
/// most.
const OWN_PROGRAMS: [&str; 4] = ["vlan-bridge", "vlan-bridge-ipa", "vlan-bridgectl", keeper::THREAD];

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The kernel announced something.
    Announced(Announcement),
    /// A pass has ended.
    Looked(Looked),
    /// Time has passed.
    Time,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a pass that leaves these things alone.
    Look(BTreeSet<Subject>),
    /// Announce the pods of a bridge on its uplink.
    Announce(Failover),
    /// Tell this.
    Report(Report),
}

/// What the agent remembers.
#[derive(Debug)]
pub(crate) struct State {
    dry_run: bool,
    watched: Watched,
    attempts: Attempts,
    paths: Paths,
    /// When the next pass begins, at the latest.
    due: Time,
    /// When all passes so far are paid.
    paid: Time,
    /// A pass is being made.
    looking: bool,
    /// Something of interest changed in nf_tables, and the end of the transaction has not been announced yet.
    rules_changed: bool,
    /// The last program that changed rules of interest, and when.
    culprit: Option<(String, Time)>,
    /// What was told about things that are different, until that changes.
    told: BTreeMap<Subject, String>,
}

impl State {
    /// The state at the start: a pass is due at once.
    pub(crate) fn new(dry_run: bool) -> State {
        State {
            dry_run,
            watched: Watched::default(),
            attempts: Attempts::default(),
            paths: Paths::default(),
            due: Time::ZERO,
            paid: Time::ZERO,
            looking: false,
            rules_changed: false,
            culprit: None,
            told: BTreeMap::new(),
        }
    }

    /// What the last pass has seen.
    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// When [`Event::Time`] is due.
    pub(crate) fn wakes_at(&self) -> Time {
        // A pass wakes the agent when it ends.
        if self.looking { self.next() + FULL_LOOK } else { self.next() }
    }

    /// Takes an event in, and returns what to do.
    pub(crate) fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = match event {
            Event::Announced(announcement) => self.announced(now, &announcement),
            Event::Looked(looked) => self.looked(now, looked),
            Event::Time => Vec::new(),
        };
        if !self.looking && now >= self.next() {
            self.looking = true;
            self.due = now + FULL_LOOK;
            actions.push(Action::Look(self.attempts.blocked(now)));
        }
        actions
    }

    /// When the next pass may begin.
    fn next(&self) -> Time {
        self.due.max(self.paid.saturating_sub(CREDIT))
    }

    fn announced(&mut self, now: Time, announcement: &Announcement) -> Vec<Action> {
        if let Announcement::NftGeneration { pid, process, .. } = announcement {
            let is_own = OWN_PROGRAMS.contains(&process.as_str());
            if std::mem::take(&mut self.rules_changed) && !is_own {
                let pid = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
                self.culprit = Some((format!("{process}{pid}"), now));
                self.due = self.due.min(now + SETTLE);
            }
        } else if interest::concerns(&self.watched, announcement) {
            if matches!(announcement, Announcement::Nft { .. }) {
                self.rules_changed = true;
            } else {
                self.due = self.due.min(now + SETTLE);
            }
        }
        let Announcement::Link(link) = announcement else { return Vec::new() };
        let failovers = self.paths.announced(&self.watched, link);
        let action = |failover| match self.dry_run {
            true => Action::Report(Report::would_announce(&failover)),
            false => Action::Announce(failover),
        };
        failovers.into_iter().map(action).collect()
    }

    fn looked(&mut self, now: Time, looked: Looked) -> Vec<Action> {
        self.looking = false;
        let is_first = self.paid == Time::ZERO;
        self.paid = self.paid.max(now.saturating_sub(looked.took)) + looked.took * PRICE;
        if let Some(watched) = looked.watched {
            self.watched = watched;
        }
        self.paths.learn(&self.watched);
        let culprit = self.culprit.as_ref().filter(|(_, at)| *at + CULPRIT_FOR + looked.took > now);
        let culprit = culprit.map(|(culprit, _)| culprit.clone());
        let mut reports = Vec::new();
        for (subject, differences) in grouped(&looked.restored) {
            self.attempts.note(&subject, now);
            self.told.remove(&subject);
            let culprit = culprit.as_deref().filter(|_| is_of_rules(&subject));
            reports.push(Report::restored(&subject, &differences, culprit));
        }
        let mut different = BTreeMap::new();
        for (subject, differences) in grouped(&looked.left) {
            let culprit = culprit.as_deref().filter(|_| is_of_rules(&subject));
            let report = match self.attempts.pause(&subject, now) {
                Some(pause) if !self.dry_run => Report::left(&subject, &differences, pause, culprit),
                _ => Report::differs(&subject, &differences),
            };
            different.insert(subject, (differences.join("; "), report));
        }
        for (subject, errors) in grouped(&looked.failed) {
            let error = errors.join("; ");
            let report = Report::failed(&subject, &error);
            different.insert(subject, (error, report));
        }
        // Each is told once, until it is something else.
        self.told.retain(|subject, _| different.contains_key(subject));
        for (subject, (what, report)) in different {
            if self.told.get(&subject) != Some(&what) {
                self.told.insert(subject, what);
                reports.push(report);
            }
        }
        if let Some(end) = self.attempts.next_end(now) {
            self.due = self.due.min(end);
        }
        if is_first {
            reports.push(Report::looked(looked.took));
        }
        reports.into_iter().map(Action::Report).collect()
    }
}

fn is_of_rules(subject: &Subject) -> bool {
    matches!(subject, Subject::Guards | Subject::Boundary | Subject::Nat)
}

fn grouped(noted: &[(Subject, String)]) -> BTreeMap<Subject, Vec<&str>> {
    let mut groups: BTreeMap<Subject, Vec<&str>> = BTreeMap::new();
    for (subject, what) in noted {
        groups.entry(subject.clone()).or_default().push(what);
    }
    groups
}

#[cfg(test)]
mod tests;
