//! For the agent: what a shared pool grants to the range sets of a network.
//!
//! The agent alone writes the files of grants. The plugin reads them under the network's lock, so what is
//! [inspected](PoolShare::inspect) after grants were stored is true for every ADD that comes later.

use std::path::{Path, PathBuf};

use cni_conf::ipam::IpamConfig;
use cni_skel::lock::{LIMIT, LOOK_LIMIT};
use ipnet::IpNet;
use vlan_bridge_pool::block::BlockKey;
use vlan_bridge_pool::grants::{Confirmation, Grants, Moment};
use vlan_bridge_pool::network::Report;
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::water::Usage;

use crate::store::{Pool, ShareFiles, Store, StoreError, WINDOW};

/// One range set of one network, as one holder of the pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolShare<'a> {
    config: &'a IpamConfig,
    network: &'a str,
    pool: Pool<'a>,
}

impl<'a> PoolShare<'a> {
    /// The shares of a network: one for each range set.
    pub fn all(config: &'a IpamConfig, network: &'a str) -> impl Iterator<Item = PoolShare<'a>> {
        Pool::all(config).map(move |pool| PoolShare { config, network, pool })
    }

    /// The index of its range set.
    pub fn set(&self) -> usize {
        self.pool.index
    }

    /// The name under which the pool knows it: the network's, and `NETWORK.1` and so on for further sets.
    pub fn holder(&self) -> String {
        self.files().holder()
    }

    /// Those of these addresses that the configuration lets the set assign. Of a range, these are among the
    /// first 2^20.
    pub fn usable(&self, of: &Runs) -> Runs {
        let mut usable = Runs::EMPTY;
        for (first, last) in of.iter_runs() {
            for range in self.pool.set.0.iter().filter(|range| range.first.is_ipv4() == first.is_ipv4()) {
                let end = range.nth(WINDOW - 1).unwrap_or(range.last);
                usable.insert_run(first.max(range.first), last.min(end));
            }
        }
        for range in &self.pool.set.0 {
            let refused = range.gateway.map(IpNet::from).into_iter().chain(range.exclude.iter().copied());
            refused.for_each(|net| usable.remove_run(net.network(), net.broadcast()));
        }
        usable
    }

    /// The node's slice: its home addresses.
    pub fn slice(&self) -> Runs {
        self.usable(&self.pool.home())
    }

    /// The grants as a reader finds them now. `None` if there are none yet.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn grants(&self) -> Result<Option<Grants>, StoreError> {
        self.files().grants()
    }

    /// Replaces the grants, and syncs file and folder.
    ///
    /// # Errors
    /// If nobody knows whether the disk has them. [`PoolShare::grants`] tells what a reader finds.
    pub fn store_grants(&self, grants: &Grants) -> Result<(), StoreError> {
        self.files().store_grants(grants)
    }

    /// Replaces the confirmation. It is not synced, because it holds for one boot.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn confirm(&self, confirmation: &Confirmation) -> Result<(), StoreError> {
        self.files().confirm(confirmation)
    }

    /// Removes the confirmation.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn withdraw(&self) -> Result<(), StoreError> {
        self.files().withdraw()
    }

    /// Under the network's lock: offers no address that is not granted, and returns those of a block that
    /// have a lease and are not granted.
    ///
    /// # Errors
    /// If the lock cannot be taken, or the store not be changed.
    pub fn inspect(&self, block: BlockKey) -> Result<Runs, StoreError> {
        let Some(mut store) = self.open(LIMIT)? else { return Ok(Runs::EMPTY) };
        let inspected = store.offer_granted(&self.pool).and_then(|rights| {
            let mut leased = Runs::EMPTY;
            let is_granted = |addr| rights.as_ref().is_some_and(|rights| rights.contains(addr));
            for addr in block.addresses().filter(|addr| !is_granted(*addr)) {
                if store.is_leased(addr)? {
                    leased.insert(addr);
                }
            }
            Ok(leased)
        });
        store.finish();
        inspected
    }

    /// Under the network's lock: offers what is granted, unless it has a lease.
    ///
    /// # Errors
    /// If the lock cannot be taken, or the store not be changed.
    pub fn offer(&self) -> Result<(), StoreError> {
        let Some(mut store) = self.open(LIMIT)? else { return Ok(()) };
        let offered = store.offer_granted(&self.pool).map(drop);
        store.finish();
        offered
    }

    /// What the store says of the share, while so many ADDs wait for it.
    ///
    /// # Errors
    /// If another process keeps the leases locked, or they cannot be read.
    pub fn report(&self, waiting: u32) -> Result<Report, StoreError> {
        let mut store = match self.open(LOOK_LIMIT)? {
            Some(store) => store,
            // No pod has been here, and nothing was granted yet.
            None if self.grants()?.is_none() => {
                return Ok(Report { usage: Usage { waiting, ..Usage::default() }, ..Report::default() });
            }
            None => Store::create(&self.config.data_dir, self.network)?,
        };
        let report = report(&mut store, &self.pool);
        store.finish();
        let mut report = report?;
        report.usage.waiting = waiting;
        Ok(report)
    }

    fn open(&self, limit: std::time::Duration) -> Result<Option<Store>, StoreError> {
        Store::open(&self.config.data_dir, self.network, limit)
    }

    fn files(&self) -> ShareFiles {
        ShareFiles::of(&self.config.data_dir, self.network, self.pool.index)
    }
}

fn report(store: &mut Store, pool: &Pool<'_>) -> Result<Report, StoreError> {
    let usages = store.usage(pool)?;
    let sum = |of: fn(&crate::store::Usage) -> u128| usages.iter().map(of).sum::<u128>();
    let used = sum(|usage| usage.used);
    let unproven = sum(|usage| usage.shared.as_ref().map_or(0, |shared| shared.unproven));
    let idle = sum(|usage| usage.total).saturating_sub(used + unproven + sum(|usage| usage.quarantined));
    Ok(Report {
        usage: Usage { idle: limited(idle), used: limited(used), waiting: 0 },
        rested: store.rested(pool)?,
        proven: store.proven(pool)?,
    })
}

fn limited(count: u128) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The present moment, as confirmations name it.
pub fn moment() -> Moment {
    crate::store::moment()
}

/// The agent's socket.
pub fn socket(data_dir: &Path) -> PathBuf {
    ShareFiles::folder(data_dir).join(".agent.sock")
}

/// The node's identity in the pools. `None` if there is none yet.
///
/// # Errors
/// If it cannot be read. Then it must not be replaced: the node would be another one.
pub fn identity(data_dir: &Path) -> Result<Option<Identity>, StoreError> {
    ShareFiles::identity(data_dir)
}

/// Replaces the node's identity, and syncs file and folder.
///
/// # Errors
/// If nobody knows whether the disk has it.
pub fn save_identity(data_dir: &Path, identity: &Identity) -> Result<(), StoreError> {
    ShareFiles::save_identity(data_dir, identity)
}

#[cfg(test)]
mod tests;
