//! Passes over the node, in a thread of their own. A pass that finds a difference takes the locks of ADD and
//! DEL, and may wait for them as long as these calls do.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use cni_conf::cni::error::{CniError, code};
use kernel::Conn;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vlan_bridge::features;
use vlan_bridge::repairs::{Repairs, Subject};
use vlan_bridge::watched::Watched;

/// The thread's name. nf_tables announces it with what a pass changes.
pub(crate) const THREAD: &str = "vlan-bridge-kpr";

/// What a pass found and did.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Each thing that was restored, with a description of what was different.
    pub(crate) restored: Vec<(Subject, String)>,
    /// What is different and was left.
    pub(crate) left: Vec<(Subject, String)>,
    /// What could not be restored, and why.
    pub(crate) failed: Vec<(Subject, String)>,
    /// The interfaces to watch from now on. None if they could not be looked up.
    pub(crate) watched: Option<Watched>,
    /// How long the pass took.
    pub(crate) took: Duration,
}

/// The thread, and the channels to it. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    jobs: Sender<BTreeSet<Subject>>,
    results: UnboundedReceiver<Result<Looked, CniError>>,
}

impl Keeper {
    /// Starts the thread in the network namespace of the calling thread. In a dry run, it restores nothing.
    pub(crate) fn start(dry_run: bool) -> io::Result<Keeper> {
        let (jobs, job) = mpsc::channel();
        let (result, results) = unbounded_channel();
        thread::Builder::new().name(THREAD.into()).spawn(move || work(&job, &result, dry_run))?;
        Ok(Keeper { jobs, results })
    }

    /// Begins a pass that leaves these things alone.
    pub(crate) fn look(&mut self, blocked: BTreeSet<Subject>) {
        // If the thread is gone, `looked` reports it.
        let _ = self.jobs.send(blocked);
    }

    /// The result of the next pass. Nothing is lost if the future is dropped.
    pub(crate) async fn looked(&mut self) -> Result<Looked, CniError> {
        let gone = || CniError::new(code::INTERNAL, "the thread that looks at the node has ended");
        self.results.recv().await.ok_or_else(gone)?
    }
}

fn work(
    jobs: &Receiver<BTreeSet<Subject>>,
    results: &UnboundedSender<Result<Looked, CniError>>,
    dry_run: bool,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error = CniError::new(code::IO_FAILURE, format!("could not start the async runtime: {e}"));
            let _ = results.send(Err(error));
            return;
        }
    };
    while let Ok(blocked) = jobs.recv() {
        let looked = Ok(runtime.block_on(look(&blocked, dry_run)));
        if results.send(looked).is_err() {
            return;
        }
    }
}

async fn look(blocked: &BTreeSet<Subject>, dry_run: bool) -> Looked {
    let begun = Instant::now();
    let mut repairs = Repairs::if_permitted(|subject| !dry_run && !blocked.contains(subject));
    // After an error, which may be a passing one, the next pass tries again.
    let outcome = features::repair(&mut repairs).await;
    repairs.note(Subject::Node, outcome);
    let watched = async { Watched::of_this_node(&Conn::open()?).await }.await;
    let watched = match watched {
        Ok(watched) => Some(watched),
        Err(error) => {
            repairs.note(Subject::Node, Err(error));
            None
        }
    };
    let failed = repairs.failed.into_iter().map(|(subject, error)| (subject, error.to_string())).collect();
    let (restored, left) = (repairs.restored, repairs.left);
    Looked { restored, left, failed, watched, took: begun.elapsed() }
}
