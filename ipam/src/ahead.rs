//! For a program that listens to a network all the time: the next addresses are probed before an ADD needs
//! them, and verdicts stay valid for as long as nobody is heard who uses the address.
//!
//! A verdict of an ADD counts for ten seconds, because a machine may take the address after that. A program
//! that has listened since the probe would have heard that machine (RFC 5227 section 2.3: a host announces an
//! address that it takes). If the program ends, its verdicts end ten seconds later.

use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use cni_conf::ipam::IpamConfig;

use crate::detect::Detector;
pub use crate::store::Listened;
use crate::store::{BootTime, Owner, Pool, Store};

/// How many addresses of each set are kept ready. A pod that starts takes one.
const READY: usize = 2;

/// The time since the boot, in tenths of a second.
pub fn uptime() -> u32 {
    BootTime::now().uptime
}

/// Extends the verdicts of a network, and probes for at most `most` addresses that come next. Returns how
/// many it has probed for. Probing takes a window (`conflictDetection`).
///
/// # Errors
/// A failure of the store or of the sockets.
pub fn keep_ready(
    config: &IpamConfig,
    network: &str,
    listened: &Listened,
    most: usize,
) -> Result<usize, CniError> {
    if config.detection.is_none() {
        return Ok(0);
    }
    let mut store = Store::create(&config.data_dir, network)?;
    let extended = store.extend_verdicts(listened);
    let unprobed = unprobed(config, &mut store);
    store.finish();
    extended?;
    let mut batch = unprobed?;
    batch.truncate(most);
    if batch.is_empty() {
        return Ok(0);
    }
    let Some(mut detector) = Detector::prepare(config, network)? else { return Ok(0) };
    // Owner of no address: what any attachment holds counts as taken.
    let nobody = Owner { container_id: String::new(), ifname: String::new() };
    detector.probe_or_wait(&nobody, &batch)?;
    // The first call takes the lock, unless an ADD has just probed.
    if detector.has_turn() {
        detector.probe_or_wait(&nobody, &batch)?;
    }
    Ok(if detector.has_probed() { batch.len() } else { 0 })
}

/// The addresses that come next and have no verdict.
fn unprobed(config: &IpamConfig, store: &mut Store) -> Result<Vec<IpAddr>, CniError> {
    let mut unprobed = Vec::new();
    for (index, set) in config.ranges.iter().enumerate() {
        let pool = Pool { index, set, cooldown: config.cooldown };
        unprobed.extend(store.upcoming(&pool, READY)?);
    }
    unprobed.retain(|addr| !store.is_clear(*addr));
    Ok(unprobed)
}
