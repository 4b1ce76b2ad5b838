//! DEL: releases the leases of an attachment.

use std::net::IpAddr;
use std::path::Path;

use cni_conf::cni::error::CniError;
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;
use cni_skel::lock::LIMIT;

use crate::store::{Owner, Store, StoreError};

/// Releases every address of the attachment. If there is nothing to release, DEL succeeds: it may come twice,
/// or after an ADD that failed early. DEL reads only the name and `dataDir` of the configuration, so a
/// mistake in another key leaks no address. If the attachment holds nothing in this network, its leases in
/// another network of the folder are released, provided its namespace is gone. The network had that name when
/// the attachment was made.
///
/// # Errors
/// If the store cannot be read or a lease cannot be removed.
pub(crate) fn del(request: &Request) -> Result<(), CniError> {
    let (dir, owner) = (IpamConfig::data_dir(&request.config), Owner::of(request));
    let released = release(&dir, &request.name, |store| store.release(&owner))?;
    if !released.is_empty() {
        return Ok(());
    }
    for network in Store::networks_of(&dir, &owner)?.iter().filter(|network| **network != request.name) {
        release(&dir, network, |store| store.release_dead(&owner))?;
    }
    Ok(())
}

fn release(
    dir: &Path,
    network: &str,
    work: impl FnOnce(&mut Store) -> Result<Vec<IpAddr>, StoreError>,
) -> Result<Vec<IpAddr>, StoreError> {
    let Some(mut store) = Store::open(dir, network, LIMIT)? else { return Ok(Vec::new()) };
    let released = work(&mut store);
    store.finish();
    for addr in released.iter().flatten() {
        log::info!("released {addr} of network {network}");
    }
    released
}
