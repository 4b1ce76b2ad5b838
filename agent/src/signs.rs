//! The agent's signs of life: the file with its state, and messages to the service manager. Both mean that
//! passes over the node end. An error is told, and ends nothing.

use std::fmt;
use std::io;

use crate::agent_state::AgentState;
use crate::conflicts::KnownConflict;
use crate::figures::Figures;
use crate::health::Health;
use crate::keeper::Looked;
use crate::notify::Notifier;
use crate::pool::PoolShown;
use crate::recent::Teller;
use crate::report::Report;

/// All signs of this agent.
#[derive(Debug)]
pub(crate) struct Signs {
    /// None before the first pass has ended.
    health: Option<Health>,
    notifier: Notifier,
    /// The conflicts that the file shows.
    conflicts: Vec<KnownConflict>,
    /// The pools that the file shows.
    pools: Vec<PoolShown>,
    /// The file is older than the last pass.
    is_old: bool,
    figures: Figures,
}

impl Signs {
    /// Finds the service manager.
    pub(crate) fn begin(figures: Figures) -> io::Result<Signs> {
        let notifier = Notifier::from_environment()?;
        let (conflicts, pools) = (Vec::new(), Vec::new());
        Ok(Signs { health: None, notifier, conflicts, pools, is_old: false, figures })
    }

    /// A pass has ended.
    pub(crate) fn looked(&mut self, looked: &Looked, teller: &mut Teller<'_>) {
        told(self.health.get_or_insert_default().note(looked), teller);
        self.figures.looked(looked);
        self.is_old = true;
        told(self.notifier.looked(), teller);
    }

    /// Writes the file if there is something new: a pass, a report or a conflict.
    pub(crate) fn show(&mut self, conflicts: Vec<KnownConflict>, teller: &mut Teller<'_>) {
        let has_changed = conflicts != self.conflicts;
        if std::mem::take(&mut self.is_old) | teller.take_news() | has_changed {
            self.conflicts.clone_from(&conflicts);
            self.figures.conflicts(conflicts.len());
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let (health, pools) = (self.health, self.pools.clone());
            let state = AgentState { version, health, conflicts, pools, recent: teller.last() };
            told(state.write(), teller);
        }
    }

    /// The pools have changed. The next call of `show` writes the file.
    pub(crate) fn pools(&mut self, pools: Vec<PoolShown>) {
        self.pools = pools;
        self.is_old = true;
    }

    /// Waits until a sign of life is due.
    pub(crate) async fn due(&self) {
        self.notifier.due().await;
    }

    /// Sends a sign of life if one is due, unless the last pass ended too long ago.
    pub(crate) fn keep_alive(&mut self, teller: &mut Teller<'_>) {
        if self.notifier.is_due() {
            let works = self.health.is_some_and(|health| health.is_fresh().unwrap_or(false));
            told(self.notifier.keep_alive(works), teller);
        }
    }

    /// The agent ends.
    pub(crate) fn end(&self, teller: &mut Teller<'_>) {
        told(self.notifier.ends(), teller);
    }
}

fn told<E: fmt::Display>(outcome: Result<(), E>, teller: &mut Teller<'_>) {
    if let Err(error) = outcome {
        teller.tell(&Report::no_sign(&error));
    }
}
