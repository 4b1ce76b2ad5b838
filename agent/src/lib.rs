//! The node agent: one long-lived process that restores what other programs change, as soon as the kernel
//! announces the change. It is never needed: without it, the next ADD or DEL restores the same.
//!
//! - `state` decides: a pure function of what was announced and of what a pass found.
//! - `keeper` makes the passes, in a thread of its own, because a pass waits for the locks of ADD and DEL.
//! - `listening` hears who uses which address, keeps addresses ready for ADD (`prober`), and finds machines
//!   that use a pod's address (`conflicts`).
//! - `failover` says when the pods must be announced to the switches, `announcer` does it.
//! - This file connects them with the kernel.

mod announcer;
mod attempts;
mod budget;
mod conflicts;
mod ear;
mod failover;
mod interest;
mod keeper;
mod listening;
mod prober;
mod report;
mod state;

use std::io;
use std::time::Instant;

use cni_conf::cni::error::{CniError, code};
use kernel::monitor::Monitor;
use kernel::signals::EndSignals;
use vlan_bridge::AgentLock;

use announcer::Announcer;
use keeper::Keeper;
use listening::Listening;
pub use report::{Report, Severity};
use state::{Action, Event, State};

/// How many conflicts may wait to be looked at. More are heard again.
const CONFLICTS: usize = 64;

/// How the agent works.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Report what would be restored, and change nothing.
    pub dry_run: bool,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent runs on this node.
    #[error("an agent already runs on this node: {0}")]
    Running(CniError),
    /// The operating system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The node could not be looked at.
    #[error(transparent)]
    Node(#[from] CniError),
}

/// Runs until SIGTERM or SIGINT. Then everything stays as it is. `tell` prints a report.
///
/// # Errors
/// [`AgentError::Running`] if the node has an agent. Others if the kernel refuses what the agent needs.
pub fn run(settings: Settings, tell: &mut dyn FnMut(&Report)) -> Result<(), AgentError> {
    let failed = |action| move |source| AgentError::Io { action, source };
    let _lock = AgentLock::acquire().map_err(|error| match error.code {
        code::TRY_AGAIN_LATER => AgentError::Running(error),
        _ => AgentError::Node(error),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed("start the async runtime"))?;
    let outcome = runtime.block_on(serve(settings, tell));
    // A pass may wait for a lock. It ends with the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(settings: Settings, tell: &mut dyn FnMut(&Report)) -> Result<(), AgentError> {
    let failed = |action| move |source| AgentError::Io { action, source };
    // Before the first thread, which inherits the blocked signals.
    let signals = EndSignals::open().map_err(failed("wait for signals"))?;
    // Before the first pass: a change during the pass is announced.
    let mut monitor = Monitor::open().map_err(failed("listen to the kernel's announcements"))?;
    let mut keeper = Keeper::start(settings.dry_run).map_err(failed("start a thread"))?;
    let (heard, mut conflicts) = tokio::sync::mpsc::channel(CONFLICTS);
    let mut network = Listening::start(settings.dry_run, heard).map_err(failed("start a thread"))?;
    let mut announcer = Announcer::default();
    let started = Instant::now();
    let mut state = State::new(settings.dry_run);
    tell(&Report::started(settings.dry_run));
    let mut event = Event::Time;
    loop {
        let was_look = matches!(event, Event::Looked(_));
        for action in state.step(started.elapsed(), event) {
            match action {
                Action::Look(blocked) => keeper.look(blocked),
                Action::Announce(failover) => tell(&match announcer.begin(&failover) {
                    Ok(addresses) => Report::announces(&failover, addresses),
                    Err(error) => Report::not_announced(&error),
                }),
                Action::Report(report) => tell(&report),
            }
        }
        if was_look {
            network.follow(state.watched());
        }
        let wake = tokio::time::Instant::from_std(started + state.wakes_at());
        let mut reports = Vec::new();
        event = tokio::select! {
            announcement = monitor.next() => {
                Event::Announced(announcement.map_err(failed("listen to the kernel's announcements"))?)
            }
            looked = keeper.looked() => Event::Looked(looked?),
            () = tokio::time::sleep_until(wake) => Event::Time,
            sent = announcer.turn() => {
                reports.extend(sent.err().map(|error| Report::not_announced(&error)));
                Event::Time
            }
            Some(conflict) = conflicts.recv() => {
                let (report, defends) = network.heard(conflict.clone(), started.elapsed());
                if defends {
                    announcer.defend(&conflict);
                }
                reports.extend(report);
                Event::Time
            }
            tended = network.tend(started) => {
                reports.extend(tended?);
                Event::Time
            }
            signal = signals.next() => {
                signal.map_err(failed("wait for signals"))?;
                tell(&Report::ended());
                return Ok(());
            }
        };
        reports.iter().for_each(&mut *tell);
    }
}
