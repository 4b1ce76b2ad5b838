//! Keeps addresses ready on the networks that are listened to, in a thread of its own: a probe waits for the
//! network.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use cni_conf::cni::error::{CniError, code};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vlan_bridge::ports::RecordedNetwork;
use vlan_bridge_ipam::ahead::{self, Listened};

/// A network, what was heard there, and how many addresses may be probed for.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) network: RecordedNetwork,
    pub(crate) listened: Listened,
    pub(crate) may_probe: usize,
}

/// What came of a job: the network's name, and the number of addresses that were probed for.
pub(crate) type Probed = (String, Result<usize, CniError>);

/// The thread, and the channels to it. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Prober {
    jobs: Sender<Vec<Job>>,
    results: UnboundedReceiver<Vec<Probed>>,
}

impl Prober {
    /// Starts the thread in the network namespace of the calling thread.
    pub(crate) fn start() -> io::Result<Prober> {
        let (jobs, job) = mpsc::channel();
        let (result, results) = unbounded_channel();
        thread::Builder::new().name("prober".into()).spawn(move || work(&job, &result))?;
        Ok(Prober { jobs, results })
    }

    /// Begins jobs.
    pub(crate) fn begin(&mut self, jobs: Vec<Job>) {
        // If the thread is gone, `probed` reports it.
        let _ = self.jobs.send(jobs);
    }

    /// The results of the jobs that began first. Nothing is lost if the future is dropped.
    pub(crate) async fn probed(&mut self) -> Result<Vec<Probed>, CniError> {
        let gone = || CniError::new(code::INTERNAL, "the thread that probes for addresses has ended");
        self.results.recv().await.ok_or_else(gone)
    }
}

fn work(jobs: &Receiver<Vec<Job>>, results: &UnboundedSender<Vec<Probed>>) {
    while let Ok(jobs) = jobs.recv() {
        // First the verdicts of all networks: a probe waits for its network, and verdicts end.
        let extended: Vec<_> = jobs.iter().map(extend).collect();
        let probed = jobs.iter().zip(extended).map(|(job, unprobed)| {
            let outcome = unprobed.and_then(|unprobed| probe(job, &unprobed));
            (job.network.name.clone(), outcome)
        });
        if results.send(probed.collect()).is_err() {
            return;
        }
    }
}

/// Returns the addresses that come next and have no verdict.
fn extend(Job { network, listened, .. }: &Job) -> Result<Vec<IpAddr>, CniError> {
    let extend = |addresses| ahead::extend(addresses, &network.name, listened);
    network.addresses.as_ref().map_or(Ok(Vec::new()), extend)
}

/// Returns for how many addresses it has probed.
fn probe(Job { network, may_probe, .. }: &Job, unprobed: &[IpAddr]) -> Result<usize, CniError> {
    let batch = unprobed.get(..*may_probe).unwrap_or(unprobed);
    network.addresses.as_ref().map_or(Ok(0), |addresses| ahead::probe(addresses, &network.name, batch))
}
