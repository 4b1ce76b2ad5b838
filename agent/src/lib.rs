//! The node agent: one long-lived process that restores what other programs change, as soon as the kernel
//! announces the change. It is never needed: without it, the next ADD or DEL restores what is cheap to
//! notice, and `repair` the rest.
//!
//! - `state` decides: a pure function of what was announced and of what a pass found.
//! - `keeper` makes the passes, in a thread of its own, because a pass may wait for the locks of ADD and DEL.
//! - `listening` hears who uses which address, keeps addresses ready for ADD (`prober`), and finds machines
//!   that use a pod's address (`conflicts`), or that pretend to be routers and DHCP servers (`strangers`).
//! - `failover` says when the pods must be announced to the switches, `announcer` does it.
//! - `agent_state` is the file that other programs read, with `health` and the `recent` reports. `notify`
//!   tells the service manager. `signs` is both.
//! - `metrics` are the numbers for Prometheus: `figures` are those that the agent counts itself.
//! - `pool` takes addresses from shared pools and gives them back. `registers` is the client of etcd, where
//!   pools are stored.
//! - `exhaustion` finds networks that have no free address, by their `usage`.
//! - This file connects them with the kernel.

mod agent_state;
mod announcer;
mod attempts;
mod budget;
mod conflicts;
mod ear;
mod exhaustion;
mod failover;
mod figures;
mod health;
mod interest;
mod keeper;
mod listening;
mod metrics;
mod notify;
mod overheard;
mod pool;
mod prober;
mod recent;
pub mod registers;
mod report;
mod signs;
mod state;
mod strangers;
#[cfg(test)]
mod testing;
mod usage;

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use cni_conf::cni::error::{CniError, code};
use kernel::monitor::{Announcement, Monitor, Subsystem};
use kernel::signals::EndSignals;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use vlan_bridge::AgentLock;
use vlan_bridge::calls::Calls;

pub use agent_state::AgentState;
use announcer::Announcer;
pub use conflicts::KnownConflict;
use ear::Conflict;
use exhaustion::Exhaustion;
use figures::Figures;
pub use health::Health;
use keeper::Keeper;
use listening::Listening;
use metrics::Metrics;
pub use metrics::MetricsAddress;
use pool::PoolNews;
pub use pool::{InstalledNetwork, PoolSettings, PoolShown, ReadLists};
use recent::Teller;
pub use recent::Told;
pub use report::{Reason, Report, Severity};
use signs::Signs;
use state::{Action, Event, State};

/// How many conflicts may wait to be looked at. More are heard again.
const CONFLICTS: usize = 64;

/// Work that a thread of its own does beside the agent.
pub type Companion = Box<dyn FnOnce() + Send>;

/// How the agent works.
#[derive(Default)]
pub struct Settings {
    /// Report what would be restored, and change nothing.
    pub dry_run: bool,
    /// Where the node's `/proc/sys/net` is, if it is elsewhere.
    pub sysctl_dir: Option<PathBuf>,
    /// What runs beside the agent, each with the name of its thread. It ends with the process.
    pub companions: Vec<(&'static str, Companion)>,
    /// Serve metrics there.
    pub metrics: Option<MetricsAddress>,
    /// Take addresses from the pools of these networks, but not in a dry run.
    pub pools: Option<PoolSettings>,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent runs on this node.
    #[error("an agent already runs on this node: {0}")]
    Running(CniError),
    /// The operating system refused.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Metrics cannot be served.
    #[error("metrics cannot be served at {address}")]
    Metrics {
        /// Where.
        address: MetricsAddress,
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
    AgentState::forget()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed("start the async runtime"))?;
    let Settings { dry_run, sysctl_dir, companions, metrics, pools } = settings;
    if let Some(dir) = sysctl_dir {
        kernel::sysctl::write_in(dir);
    }
    let figures = Figures::default();
    let outcome = runtime.block_on(async {
        // Before the first thread, which inherits the blocked signals.
        let signals = EndSignals::open().map_err(failed("wait for signals"))?;
        let _metrics = serve_metrics(metrics.as_ref(), &figures)?;
        for (name, companion) in companions {
            thread::Builder::new().name(name.into()).spawn(companion).map_err(failed("start a thread"))?;
        }
        let pools = pools.filter(|_| !dry_run).map(|pools| pool::start(pools, figures.clone()));
        let pools = pools.transpose().map_err(failed("start a thread"))?;
        serve(dry_run, pools, &signals, &mut Teller::new(tell, figures.clone()), &figures).await
    });
    // A pass may wait for a lock. It ends with the process.
    runtime.shutdown_background();
    outcome
}

/// Starts to serve metrics if that is asked for. Otherwise, calls are no longer counted.
fn serve_metrics(address: Option<&MetricsAddress>, figures: &Figures) -> Result<Option<Metrics>, AgentError> {
    let Some(address) = address else {
        Calls::forget()?;
        return Ok(None);
    };
    let failed = |source| AgentError::Metrics { address: address.clone(), source };
    Metrics::start(address, Calls::keep()?, figures.clone()).map(Some).map_err(failed)
}

async fn serve(
    dry_run: bool,
    pools: Option<UnboundedReceiver<PoolNews>>,
    signals: &EndSignals,
    teller: &mut Teller<'_>,
    figures: &Figures,
) -> Result<(), AgentError> {
    let mut parts = Parts::begin(dry_run, pools, figures)?;
    teller.tell(&Report::started(dry_run));
    let mut event = Event::Time;
    loop {
        parts.act(event, teller);
        event = match parts.next(signals).await? {
            Next::Event(event) => event,
            Next::Reports(reports) => {
                reports.iter().for_each(|report| teller.tell(report));
                Event::Time
            }
            Next::End => {
                parts.signs.end(teller);
                teller.tell(&Report::ended());
                return Ok(());
            }
        };
    }
}

/// What the agent waits for.
enum Next {
    /// Something happened that the state has to know.
    Event(Event),
    /// A part has something to tell, or nothing after all.
    Reports(Vec<Report>),
    /// SIGTERM or SIGINT came.
    End,
}

/// What the agent does at the same time.
struct Parts {
    monitor: Monitor,
    keeper: Keeper,
    network: Listening,
    conflicts: Receiver<Conflict>,
    announcer: Announcer,
    exhaustion: Exhaustion,
    pools: Option<UnboundedReceiver<PoolNews>>,
    signs: Signs,
    started: Instant,
    state: State,
}

impl Parts {
    fn begin(
        dry_run: bool,
        pools: Option<UnboundedReceiver<PoolNews>>,
        figures: &Figures,
    ) -> Result<Parts, AgentError> {
        let failed = |action| move |source| AgentError::Io { action, source };
        // Before the first pass: a change during the pass is announced.
        let monitor = Monitor::open().map_err(failed("listen to the kernel's announcements"))?;
        let (heard, conflicts) = tokio::sync::mpsc::channel(CONFLICTS);
        let network = Listening::start(dry_run, heard, figures.clone());
        let signs = Signs::begin(figures.clone());
        Ok(Parts {
            monitor,
            keeper: Keeper::start(dry_run).map_err(failed("start a thread"))?,
            network: network.map_err(failed("start a thread"))?,
            conflicts,
            announcer: Announcer::new(figures.clone()),
            exhaustion: Exhaustion::begin(),
            pools,
            signs: signs.map_err(failed("find the service manager's socket"))?,
            started: Instant::now(),
            state: State::new(dry_run),
        })
    }

    /// Does what follows from an event.
    fn act(&mut self, event: Event, teller: &mut Teller<'_>) {
        self.signs.keep_alive(teller);
        if let Event::Looked(looked) = &event {
            self.signs.looked(looked, teller);
        }
        if matches!(event, Event::Announced(Announcement::Lost(Subsystem::Route))) {
            self.network.gap_of_all();
        }
        let was_look = matches!(event, Event::Looked(_));
        for action in self.state.step(self.started.elapsed(), event) {
            match action {
                Action::Look(blocked) => self.keeper.look(blocked),
                Action::Announce(failover) => {
                    self.network.gap(&failover.uplink);
                    teller.tell(&self.announcer.begin(&failover));
                }
                Action::Report(report) => teller.tell(&report),
            }
        }
        if was_look {
            self.network.follow(self.state.watched());
        }
        self.signs.show(self.network.conflicts(), teller);
    }

    /// Waits until there is something to do.
    async fn next(&mut self, signals: &EndSignals) -> Result<Next, AgentError> {
        let failed = |action| move |source| AgentError::Io { action, source };
        let wake = tokio::time::Instant::from_std(self.started + self.state.wakes_at());
        Ok(tokio::select! {
            announcement = self.monitor.next() => {
                let announcement = announcement.map_err(failed("listen to the kernel's announcements"))?;
                Next::Event(Event::Announced(announcement))
            }
            looked = self.keeper.looked() => Next::Event(Event::Looked(looked?)),
            () = self.signs.due() => Next::Event(Event::Time),
            () = tokio::time::sleep_until(wake) => Next::Event(Event::Time),
            unsent = self.announcer.turn() => Next::Reports(unsent.into_iter().collect()),
            Some(conflict) = self.conflicts.recv() => {
                let (report, defends) = self.network.heard(conflict.clone(), self.started.elapsed());
                let unsent = if defends { self.announcer.defend(&conflict) } else { None };
                Next::Reports(report.into_iter().chain(unsent).collect())
            }
            tended = self.network.tend(self.started) => Next::Reports(tended?),
            exhausted = self.exhaustion.turn() => Next::Reports(exhausted?.into_iter().collect()),
            Some(news) = pool_news(&mut self.pools) => match news {
                PoolNews::Report(report) => Next::Reports(vec![report]),
                PoolNews::Shown(pools) => {
                    self.signs.pools(pools);
                    Next::Reports(Vec::new())
                }
            },
            signal = signals.next() => {
                signal.map_err(failed("wait for signals"))?;
                Next::End
            }
        })
    }
}

/// The next news of pools. Without pools there is none.
async fn pool_news(pools: &mut Option<UnboundedReceiver<PoolNews>>) -> Option<PoolNews> {
    match pools {
        Some(pools) => pools.recv().await,
        None => std::future::pending().await,
    }
}
