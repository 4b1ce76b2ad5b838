//! Queries for operators.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_conf::cni::env::is_identifier;

use super::boot_time::BootTime;
use super::error::{StoreError, at};
use super::files::{self, holder_at};
use super::holder::{Holder, Owner};
use super::machine::{Age, ThisMachine};
use super::record::{self, HolderRecord, RecordFile};
use super::table::AddressRange;
use super::usage::Usage;
use super::{StateDir, Store, remove};

/// A held address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its holder.
    pub holder: Holder,
    /// The holder's record.
    pub record: Option<HolderRecord>,
    /// The machine that assigned it, if it is another machine.
    pub elsewhere: Option<String>,
}

impl Known {
    /// Whether the holder's namespace exists. `None` if this is unknown.
    pub fn is_alive(&self) -> Option<bool> {
        if self.elsewhere.is_some() {
            return None;
        }
        self.record.as_ref()?.netns.as_ref()?.is_alive()
    }
}

/// A free address that cools down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cooling {
    /// The address.
    pub addr: IpAddr,
    /// How long it has been free, in seconds.
    pub free_for: u32,
}

/// Reads single leases without the lock. A lease that is released meanwhile counts as missing.
#[derive(Debug, Clone)]
pub struct Inspector {
    dir: PathBuf,
    owners: PathBuf,
    boot_time: BootTime,
    here: ThisMachine,
}

impl Inspector {
    /// The lease of an address. `None` if it is not held.
    ///
    /// # Errors
    /// If the lease cannot be read.
    pub fn look(&self, addr: IpAddr) -> Result<Option<Known>, StoreError> {
        let Some(holder) = holder_at(&self.dir.join(addr.to_string()))? else { return Ok(None) };
        let record = match HolderRecord::read(&self.owners.join(record::file_name(&holder, addr))) {
            RecordFile::Readable(record) => Some(record),
            RecordFile::Nothing | RecordFile::Torn => None,
        };
        let anothers = |record: &&HolderRecord| self.here.age(&self.boot_time, record) == Age::Elsewhere;
        let elsewhere = record.as_ref().filter(anothers).map(|record| record.machine.clone());
        Ok(Some(Known { holder, record, elsewhere }))
    }
}

impl Store {
    /// The networks that have leases in a data directory, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read. A missing directory is no error.
    pub fn networks(data_dir: &Path) -> Result<Vec<String>, StoreError> {
        match fs::metadata(data_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at("read", data_dir)(error)),
            Ok(_) => {}
        }
        let mut names = files::names(data_dir)?;
        let is_directory =
            |name: &String| fs::symlink_metadata(data_dir.join(name)).is_ok_and(|found| found.is_dir());
        names.retain(|name| is_identifier(name) && is_directory(name));
        names.sort();
        Ok(names)
    }

    /// The networks in a data directory in which an attachment has a record.
    ///
    /// # Errors
    /// If the directory cannot be read. A missing directory is no error.
    pub fn networks_of(data_dir: &Path, owner: &Owner) -> Result<Vec<String>, StoreError> {
        let mut networks = Store::networks(data_dir)?;
        let record = record::of_owner(owner);
        networks.retain(|network| StateDir::of(data_dir, network).owners.join(&record).exists());
        Ok(networks)
    }

    /// The networks in a data directory that have a lease and none of these names, with the number of leases.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn orphans(data_dir: &Path, named: &BTreeSet<String>) -> Result<Vec<(String, usize)>, StoreError> {
        let mut orphans = Vec::new();
        for network in Store::networks(data_dir)?.into_iter().filter(|network| !named.contains(network)) {
            let held = files::addresses(&data_dir.join(&network))?.len();
            if held > 0 {
                orphans.push((network, held));
            }
        }
        Ok(orphans)
    }

    /// An inspector of single leases that outlives the lock.
    pub fn inspector(&self) -> Inspector {
        let (boot_time, here) = (self.boot_time.clone(), self.here.clone());
        Inspector { dir: self.dir.clone(), owners: self.side.owners.clone(), boot_time, here }
    }

    /// The addresses that became free within the last `cooldown` seconds, in the order of their release.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn cooling(&mut self, cooldown: u32) -> Result<Vec<Cooling>, StoreError> {
        let (since, now) = (self.rested_since(cooldown), self.boot_time.uptime);
        let aside = self.all_quarantined();
        let mut cooling = Vec::new();
        for span in self.spans() {
            let path = self.side.ranges.join(span.name());
            let Some(table) = self.opened(span) else { continue };
            for rested in table.freed_after(since).map_err(at("read", &path))? {
                cooling.push(Cooling { addr: rested.addr, free_for: now.saturating_sub(rested.at) / 10 });
            }
        }
        cooling.retain(|cooling: &Cooling| !aside.iter().any(|(addr, ..)| *addr == cooling.addr));
        cooling.sort_by_key(|cooling| (cooling.addr, cooling.free_for));
        cooling.dedup_by_key(|cooling| cooling.addr);
        Ok(cooling)
    }

    /// The usage of each range from which an ADD has asked for an address since the boot.
    ///
    /// # Errors
    /// If a table or the directory cannot be read.
    pub fn usage_of_all(&mut self, cooldown: u32) -> Result<Vec<Usage>, StoreError> {
        let (held, cooling) = (self.addresses()?, self.cooling(cooldown)?);
        let aside = self.all_quarantined();
        let mut usages = Vec::new();
        for span in self.spans() {
            let Some(total) = self.opened(span).map(|table| table.capacity()) else { continue };
            let used = held.iter().filter(|addr| span.contains(**addr));
            let shared = self.shared_usage(span, used.clone())?;
            let withdrawn = shared.as_ref().map_or(0, |shared| shared.withdrawn);
            usages.push(Usage {
                range: span.name(),
                used: used.count() as u128 - withdrawn,
                cooling: cooling.iter().filter(|cooling| span.contains(cooling.addr)).count() as u128,
                quarantined: aside.iter().filter(|(addr, ..)| span.contains(*addr)).count() as u128,
                total: shared.as_ref().filter(|s| s.is_granted).map_or(total.into(), |s| s.home + s.leased),
                shared,
            });
        }
        Ok(usages)
    }

    /// Releases one address of any holder.
    ///
    /// # Errors
    /// If the lease or the record cannot be changed.
    pub fn release_address(&mut self, addr: IpAddr) -> Result<bool, StoreError> {
        let Some(holder) = holder_at(&self.lease(addr))? else { return Ok(false) };
        let name = record::file_name(&holder, addr);
        self.free_lease(addr, &name)?;
        self.drop_clear(|other| other == addr)?;
        let path = self.side.owners.join(&name);
        if let Some(mut record) = self.record(&name)? {
            record.take(addr);
            if record.addresses.is_empty() { remove(&path) } else { record.write(&path) }?;
        }
        Ok(true)
    }

    /// The number of leases of each other machine, by its identity.
    ///
    /// # Errors
    /// If the records cannot be listed.
    pub fn elsewhere(&self) -> Result<BTreeMap<String, usize>, StoreError> {
        let mut elsewhere: BTreeMap<String, usize> = BTreeMap::new();
        for name in files::names(&self.side.owners)? {
            if let RecordFile::Readable(record) = HolderRecord::read(&self.side.owners.join(&name))
                && self.is_elsewhere(&record)
            {
                *elsewhere.entry(record.machine).or_default() += record.addresses.len();
            }
        }
        Ok(elsewhere)
    }

    fn spans(&self) -> Vec<AddressRange> {
        self.index.ranges.iter().filter_map(|name| AddressRange::parse(name)).collect()
    }
}
