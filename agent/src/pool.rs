//! Shared address pools on this node: the only part that speaks to a store. The protocol is the crate
//! `vlan-bridge-pool`, which does no I/O. Here its actions are done, in a thread of its own:
//!
//! - `plan` finds the shares of the installed network lists. A share is one range set of one network.
//! - `life` drives the protocol for as long as these and the pools' documents stay as they are. `beginning`
//!   is how it begins, `asked` what ADDs and other nodes ask of it, `telling` what it tells.
//! - `store_work` and `local_work` do its actions, in the store and on the node. `watches` hears the store.
//! - `socket` hears ADDs that wait for an address, and `waiting` knows them.
//! - `outage` tells when the store does not answer. `shown` is what `status` and `doctor` see.

mod asked;
mod beginning;
mod life;
mod local_work;
mod outage;
mod plan;
mod report;
mod shown;
mod socket;
mod store_work;
mod telling;
mod waiting;
mod watches;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cni_conf::ipam::IpamConfig;
use cni_conf::pool::PoolStore;
use kernel::folders::FolderWatch;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::figures::Figures;
use crate::registers::Etcd;
use crate::report::Report;
use life::{Ended, Life, Surroundings};
use plan::{NodePlan, Plan};
pub use shown::PoolShown;
use socket::Socket;
use waiting::Waiting;

/// How often the lists are read if nothing is announced.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// How often the lists are read while a folder cannot be watched, because it does not exist yet.
const WITHOUT_WATCH: Duration = Duration::from_secs(5);
/// The pause before another life of the same lists.
const AGAIN: Duration = Duration::from_secs(1);
/// The pause after a change of a list: a program makes several at once.
const SETTLE: Duration = Duration::from_millis(100);

/// A network of an installed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledNetwork {
    /// Its name.
    pub name: String,
    /// Its `ipam` section, or what is wrong with it.
    pub config: Result<IpamConfig, String>,
}

/// Reads the installed lists.
pub type ReadLists = Box<dyn FnMut() -> Vec<InstalledNetwork> + Send>;

/// What the agent needs to know of the node for its pools.
pub struct PoolSettings {
    /// The node's name in the store.
    pub node: String,
    /// The folders with the installed lists.
    pub folders: Vec<PathBuf>,
    /// Reads them.
    pub read: ReadLists,
}

/// What the rest of the agent hears.
#[derive(Debug)]
pub(crate) enum PoolNews {
    /// Something to tell.
    Report(Report),
    /// Something to show has changed.
    Shown(Vec<PoolShown>),
}

impl From<Report> for PoolNews {
    fn from(report: Report) -> PoolNews {
        PoolNews::Report(report)
    }
}

/// Starts the threads. They end with the process. News come by the channel.
pub(crate) fn start(settings: PoolSettings, figures: Figures) -> io::Result<UnboundedReceiver<PoolNews>> {
    let (news, told) = unbounded_channel();
    let (lists, changes) = unbounded_channel();
    let PoolSettings { node, folders, read } = settings;
    thread::Builder::new().name("lists".into()).spawn(move || follow_lists(&folders, read, &lists))?;
    // A round waits for a lock or a disk now and then. Rounds of several networks need not wait for each
    // other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    thread::Builder::new()
        .name("pool".into())
        .spawn(move || runtime.block_on(run(&node, changes, news, &figures)))?;
    Ok(told)
}

/// Sends the networks of the lists whenever they differ.
fn follow_lists(folders: &[PathBuf], mut read: ReadLists, changes: &UnboundedSender<Vec<InstalledNetwork>>) {
    let mut known = None;
    loop {
        // Before the files are read, so that no later change is missed.
        let watch = FolderWatch::of(folders.iter().map(PathBuf::as_path));
        let now = read();
        if known.as_ref() != Some(&now) {
            known = Some(now.clone());
            if changes.send(now).is_err() {
                return;
            }
        }
        match watch.and_then(|watch| watch.wait(READ_AGAIN)) {
            Ok(()) => thread::sleep(SETTLE),
            Err(_) => thread::sleep(WITHOUT_WATCH),
        }
    }
}

/// Uses the pools of the lists, as they are at each time.
async fn run(
    node: &str,
    mut changes: UnboundedReceiver<Vec<InstalledNetwork>>,
    news: UnboundedSender<PoolNews>,
    figures: &Figures,
) {
    let Some(mut networks) = changes.recv().await else { return };
    let (mut socket, mut waiting) = (None::<Socket>, Waiting::default());
    loop {
        let plan = Plan::of(node, &networks);
        for problem in &plan.problems {
            // If nobody hears it, the process ends.
            let _ = news.send(Report::pool_not_used(problem).into());
        }
        let ended = match plan.node {
            Some(plan) => {
                if socket.as_ref().is_none_or(|socket| socket.data_dir() != plan.data_dir) {
                    // Nobody hears the end of ADDs that wait at the old one.
                    drop(socket.take());
                    waiting = Waiting::default();
                    socket = listen(&plan.data_dir, &news);
                }
                let life = Surroundings { waiting: &mut waiting, news: &news, figures };
                live(plan, &mut changes, socket.as_mut(), life).await
            }
            None => {
                (socket, waiting) = (None, Waiting::default());
                changes.recv().await.map_or(Ended::Gone, Ended::Lists)
            }
        };
        match ended {
            Ended::Lists(now) => networks = now,
            Ended::Again => sleep(AGAIN).await,
            Ended::Gone => return,
        }
    }
}

/// Uses the pools of a plan until something changes.
async fn live(
    plan: NodePlan,
    changes: &mut UnboundedReceiver<Vec<InstalledNetwork>>,
    socket: Option<&mut Socket>,
    surroundings: Surroundings<'_>,
) -> Ended {
    let PoolStore::Etcd(config) = &plan.store;
    let store = match Etcd::new(config) {
        Ok(store) => store,
        Err(error) => {
            let _ = surroundings.news.send(Report::store_away(&error).into());
            // The files of certificates may come later.
            return match timeout(READ_AGAIN, changes.recv()).await {
                Ok(lists) => lists.map_or(Ended::Gone, Ended::Lists),
                Err(_) => Ended::Again,
            };
        }
    };
    Life::begin(plan, store, surroundings).await.run(changes, socket).await
}

/// Without a socket, ADDs do not wait for the agent, and everything else works.
fn listen(data_dir: &Path, news: &UnboundedSender<PoolNews>) -> Option<Socket> {
    match Socket::bind(data_dir) {
        Ok(socket) => Some(socket),
        Err(error) => {
            let problem = format!("ADDs cannot ask for addresses: {error}");
            let _ = news.send(Report::pool_not_used(&problem).into());
            None
        }
    }
}
