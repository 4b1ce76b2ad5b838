//! How many addresses of a network's ranges are in which state, for a program that watches the node.

use cni_conf::cni::error::CniError;
use cni_conf::ipam::IpamConfig;
use cni_skel::lock::LOOK_LIMIT;

use crate::store::{Pool, Store, StoreError, Usage};

/// The usage of the ranges of each set. Empty if the network has had no pod yet.
///
/// # Errors
/// The leases cannot be read, or another process keeps them locked.
pub fn of_network(config: &IpamConfig, network: &str) -> Result<Vec<Vec<Usage>>, CniError> {
    let Some(mut store) = Store::open(&config.data_dir, network, LOOK_LIMIT)? else { return Ok(Vec::new()) };
    let usages: Result<_, StoreError> = Pool::all(config).map(|pool| store.usage(&pool)).collect();
    store.finish();
    Ok(usages?)
}
