//! Rebuilds records and tables from the leases: after another program changed a lease, after a plugin process
//! was killed half way through a change, and after a reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use cni_skel::draft;

use super::boot_time::clock;
use super::error::{StoreError, at};
use super::files::{self, Lease, remove, write_new};
use super::holder::{Holder, Owner};
use super::machine::Age;
use super::record::{self, HolderRecord, RecordFile};
use super::table::{AddressRange, Fresh, RangeTable};
use super::{CLAIM, Index, Store, rights};

impl Store {
    /// Reads every lease and every record once. Removes only leases that cannot have a holder: those of an
    /// earlier boot, and empty ones.
    ///
    /// # Errors
    /// If anything cannot be read or written.
    pub(crate) fn reconcile(&mut self) -> Result<(), StoreError> {
        log::info!("{}: reading every lease", self.dir.display());
        self.changed = true;
        for dir in [&self.side.owners, &self.side.ranges] {
            files::make_private(dir)?;
        }
        remove(&self.dir.join(CLAIM))?;
        let mut records = self.records()?;
        let mut holders: BTreeMap<String, Vec<Lease>> = BTreeMap::new();
        for lease in self.repaired(files::scan(&self.dir)?, &mut records)? {
            holders.entry(record::file_name(&lease.holder, lease.addr)).or_default().push(lease);
        }
        let mut held = BTreeSet::new();
        let mut elsewhere: BTreeMap<String, usize> = BTreeMap::new();
        for (name, leases) in &holders {
            let mut record = records.remove(name).flatten();
            if let Some(record) = record.as_ref().filter(|record| self.is_elsewhere(record)) {
                held.extend(leases.iter().map(|lease| lease.addr));
                *elsewhere.entry(record.machine.clone()).or_default() += leases.len();
                continue;
            }
            let mut kept = leases.clone();
            if let Some(record) = record.take_if(|record| self.here.age(&self.boot_time, record) == Age::Past)
            {
                let (old, since) = kept.into_iter().partition(|lease| record.is_of(lease));
                kept = since;
                kept.extend(self.release_old(name, old)?);
            }
            held.extend(kept.iter().map(|lease| lease.addr));
            self.keep(name, &kept, record)?;
        }
        // The remaining records name holders without a lease.
        for name in records.keys() {
            remove(&self.side.owners.join(name))?;
        }
        self.here.note(&elsewhere.keys().map(String::as_str).collect())?;
        for (machine, count) in &elsewhere {
            log::warn!(
                "{}: {count} addresses belong to another machine, {machine}, and stay. Machines must not share ipam.dataDir. \
                 If that machine is gone, or this is a copy of its folder, run: vlan-bridge-ipam release --machine {machine}",
                self.dir.display()
            );
        }
        self.remake_tables(&held)?;
        self.known = true;
        Ok(())
    }

    /// Every record by its file name. A file that is no record has only the name.
    fn records(&self) -> Result<BTreeMap<String, Option<HolderRecord>>, StoreError> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.side.owners).map_err(at("read", &self.side.owners))? {
            let entry = entry.map_err(at("read", &self.side.owners))?;
            if let Ok(name) = entry.file_name().into_string() {
                let record = match HolderRecord::read(&entry.path()) {
                    RecordFile::Readable(record) => Some(record),
                    RecordFile::Nothing | RecordFile::Torn => None,
                };
                records.insert(name, record);
            }
        }
        Ok(records)
    }

    /// The leases without the empty ones. A torn lease is restored if a record has its content.
    fn repaired(
        &self,
        mut leases: Vec<Lease>,
        records: &mut BTreeMap<String, Option<HolderRecord>>,
    ) -> Result<Vec<Lease>, StoreError> {
        let mut owners: Option<BTreeMap<IpAddr, Owner>> = None;
        let mut kept = Vec::new();
        for mut lease in leases.drain(..) {
            let known = records.contains_key(&record::file_name(&lease.holder, lease.addr));
            if !known
                && lease.is_file
                && let Some(owner) = owners.get_or_insert_with(|| self.owners(records)).get(&lease.addr)
                && record::is_cut(&lease.holder, &record::of_owner(owner))
                && (lease.holder.names_no_holder() || is_of(records.get(&record::of_owner(owner)), &lease))
            {
                log::warn!("{}: torn, it belongs to {owner}", lease.path.display());
                let name = record::of_owner(owner);
                let make = |draft: &Path| {
                    let stamp = write_new(draft, owner.record().as_bytes())?;
                    if let Some(Some(record)) = records.get_mut(&name) {
                        record.add(lease.addr, stamp);
                        record.write(&self.side.owners.join(&name))?;
                    }
                    Ok(stamp)
                };
                lease.stamp =
                    draft::replace(&lease.path, &self.dir.join(CLAIM), make, at("write", &lease.path))?;
                lease.holder = Holder::Attachment(owner.clone());
            }
            if lease.holder == Holder::Empty {
                log::warn!("{}: removed an empty lease", lease.path.display());
                remove(&lease.path)?;
                continue;
            }
            if lease.holder == Holder::Unreadable {
                log::warn!("{}: not a lease, its address will not be assigned", lease.path.display());
            }
            kept.push(lease);
        }
        Ok(kept)
    }

    /// The owner of each address according to the records.
    fn owners(&self, records: &BTreeMap<String, Option<HolderRecord>>) -> BTreeMap<IpAddr, Owner> {
        let mut owners = BTreeMap::new();
        for (name, record) in records {
            if let (Some(Holder::Attachment(owner)), Some(record)) = (record::holder_of(name), record) {
                owners.extend(record.addresses.iter().map(|addr| (*addr, owner.clone())));
            }
        }
        owners
    }

    /// Releases leases from before the machine's boot, because no network namespace survives a reboot.
    /// Returns the leases that cannot be removed.
    fn release_old(&self, name: &str, leases: Vec<Lease>) -> Result<Vec<Lease>, StoreError> {
        let mut stuck = Vec::new();
        for lease in leases {
            match fs::remove_file(&lease.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    log::warn!("cannot remove {}: {error}", lease.path.display());
                    stuck.push(lease);
                }
                _ => log::info!("released {} of {name}: the machine has rebooted", lease.addr),
            }
        }
        Ok(stuck)
    }

    /// Updates the record of a holder. Leases that the record does not describe get this boot, and nothing
    /// more: the old record may describe another container of the same name.
    fn keep(&self, name: &str, leases: &[Lease], record: Option<HolderRecord>) -> Result<(), StoreError> {
        let path = self.side.owners.join(name);
        if leases.is_empty() {
            return remove(&path);
        }
        let old = record.filter(|record| leases.iter().all(|lease| record.is_of(lease)));
        if old.as_ref().is_some_and(|record| record.addresses.len() == leases.len()) {
            return Ok(());
        }
        let unseen = HolderRecord {
            boot: self.boot_time.boot.clone(),
            machine: self.here.id.clone(),
            since: clock(),
            adopted: true,
            ..HolderRecord::default()
        };
        let mut record =
            HolderRecord { addresses: Vec::new(), stamps: BTreeMap::new(), ..old.unwrap_or(unseen) };
        for lease in leases {
            record.add(lease.addr, lease.stamp);
        }
        record.write(&path)
    }

    /// Rebuilds every table. How long an address has been free is unknown across a boot.
    fn remake_tables(&mut self, held: &BTreeSet<IpAddr>) -> Result<(), StoreError> {
        self.tables.clear();
        if self.index.boot != self.boot_time.boot {
            self.index = Index::default();
        }
        for name in self.index.ranges.clone() {
            let path = self.side.ranges.join(&name);
            let Some(span) = AddressRange::parse(&name) else { continue };
            // What it shows of a shared pool is compared when somebody asks for an address.
            let shown = self.index.shared.get_mut(&name);
            let fresh = if shown.is_some() { Fresh::None } else { Fresh::After(None) };
            shown.into_iter().for_each(|shown| shown.stamp = rights::UNKNOWN);
            let table = RangeTable::make(&path, span, held, fresh, self.boot_time.uptime)
                .map_err(at("write", &path))?;
            self.tables.insert(name, table);
        }
        Ok(())
    }
}

/// Whether a record describes this very file. A readable lease may be a complete one of another holder.
fn is_of(record: Option<&Option<HolderRecord>>, lease: &Lease) -> bool {
    record.and_then(Option::as_ref).is_some_and(|record| record.is_of(lease))
}
