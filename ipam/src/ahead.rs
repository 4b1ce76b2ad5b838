//! For a program that listens to a network all the time: the next addresses are probed before an ADD needs
//! them, and verdicts stay valid for as long as nobody is heard who uses the address.
//!
//! A verdict of an ADD counts for ten seconds, because a machine may take the address after that. A program
//! that has listened since the probe would have heard that machine (RFC 5227 section 2.3: a host announces an
//! address that it takes). If the program ends, its verdicts end ten seconds later.

use std::net::IpAddr;
use std::time::Duration;

use cni_conf::cni::error::CniError;
use cni_conf::ipam::IpamConfig;

use crate::detect::Detector;
pub use crate::store::Listened;
pub use crate::store::uptime;
use crate::store::{Owner, Pool, Store};

/// How many addresses of each set are kept ready. A pod that starts takes one.
const READY: usize = 2;
/// How long to wait for the leases of a network. Verdicts of the other networks end after ten seconds.
const BUSY: Duration = Duration::from_secs(1);

/// Extends the verdicts of a network. Returns the addresses that come next and have no verdict. Waits for
/// the leases only as long as other networks can wait for their turn.
///
/// # Errors
/// A failure of the store, and leases that another process keeps locked.
pub fn extend(config: &IpamConfig, network: &str, listened: &Listened) -> Result<Vec<IpAddr>, CniError> {
    if config.detection.is_none() {
        return Ok(Vec::new());
    }
    let Some(mut store) = Store::open(&config.data_dir, network, BUSY)? else { return Ok(Vec::new()) };
    let extended = store.extend_verdicts(listened);
    let unprobed = unprobed(config, &mut store);
    store.finish();
    extended?;
    unprobed
}

/// Probes for addresses, which takes a window (`conflictDetection`). Returns how many it has probed for:
/// none if an ADD probes right now, whose verdicts serve as well, or if no machine could answer.
///
/// # Errors
/// A failure of the store or of the sockets.
pub fn probe(config: &IpamConfig, network: &str, batch: &[IpAddr]) -> Result<usize, CniError> {
    let Some(mut detector) = Detector::prepare(config, network)?.filter(|_| !batch.is_empty()) else {
        return Ok(0);
    };
    // Owner of no address: what any attachment holds counts as taken.
    let nobody = Owner { container_id: String::new(), ifname: String::new() };
    Ok(if detector.probe_if_free(&nobody, batch)? { batch.len() } else { 0 })
}

/// The addresses that come next and have no verdict.
fn unprobed(config: &IpamConfig, store: &mut Store) -> Result<Vec<IpAddr>, CniError> {
    let mut unprobed = Vec::new();
    for pool in Pool::all(config) {
        unprobed.extend(store.upcoming(&pool, READY)?);
    }
    unprobed.retain(|addr| !store.is_clear(*addr));
    Ok(unprobed)
}
