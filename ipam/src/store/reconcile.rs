//! Making records and tables anew from the leases, after somebody else changed those, after one of us was
//! killed half way through a change, and after a reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use super::boot_time::clock;
use super::error::{StoreError, at};
use super::files::{self, Lease, remove, write_new};
use super::holder::{Holder, Owner};
use super::machine::Age;
use super::record::{self, Found, Record};
use super::table::{AddressRange, Table};
use super::{CLAIM, Index, Store};

impl Store {
    /// Looks at every lease and every record once. Leases are removed only where nobody can hold them: of an
    /// earlier boot, or empty.
    ///
    /// # Errors
    /// When anything of it cannot be read or written.
    pub(crate) fn reconcile(&mut self) -> Result<(), StoreError> {
        log::info!("{}: looking at every lease", self.dir.display());
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
        // What is left is of nobody who holds a lease.
        for name in records.keys() {
            remove(&self.side.owners.join(name))?;
        }
        self.here.note(&elsewhere.keys().map(String::as_str).collect())?;
        for (machine, count) in &elsewhere {
            log::warn!(
                "{}: {count} addresses are of another machine, {machine}, and are left alone: no two machines may share \
                 ipam.dataDir; if that one is gone, or this is a copy of its folder: vlan-bridge-ipam release --machine {machine}",
                self.dir.display()
            );
        }
        self.remake_tables(&held)?;
        self.known = true;
        Ok(())
    }

    /// Every record by its name; one that is none, by its name alone.
    fn records(&self) -> Result<BTreeMap<String, Option<Record>>, StoreError> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.side.owners).map_err(at("read", &self.side.owners))? {
            let entry = entry.map_err(at("read", &self.side.owners))?;
            if let Ok(name) = entry.file_name().into_string() {
                let record = match Record::read(&entry.path()) {
                    Found::Record(record) => Some(record),
                    Found::Nothing | Found::Torn => None,
                };
                records.insert(name, record);
            }
        }
        Ok(records)
    }

    /// The leases without empty ones. One that is torn is written anew where a record says what it was.
    fn repaired(
        &self,
        mut leases: Vec<Lease>,
        records: &mut BTreeMap<String, Option<Record>>,
    ) -> Result<Vec<Lease>, StoreError> {
        let mut owners: Option<BTreeMap<IpAddr, Owner>> = None;
        let mut kept = Vec::new();
        for mut lease in leases.drain(..) {
            let known = records.contains_key(&record::file_name(&lease.holder, lease.addr));
            if !known
                && lease.is_file
                && let Some(owner) = owners.get_or_insert_with(|| self.owners(records)).get(&lease.addr)
                && record::is_cut(&lease.holder, &record::of_owner(owner))
                && (lease.holder.is_nobodys() || is_of(records.get(&record::of_owner(owner)), &lease))
            {
                log::warn!("{}: torn, it is of {owner}", lease.path.display());
                let draft = self.dir.join(CLAIM);
                lease.stamp = write_new(&draft, owner.record().as_bytes())?;
                let name = record::of_owner(owner);
                if let Some(Some(record)) = records.get_mut(&name) {
                    record.add(lease.addr, lease.stamp);
                    record.write(&self.side.owners.join(name))?;
                }
                fs::rename(&draft, &lease.path).map_err(at("write", &lease.path))?;
                lease.holder = Holder::Attachment(owner.clone());
            }
            if lease.holder == Holder::Nobody {
                log::warn!("{}: an empty lease, reclaimed", lease.path.display());
                remove(&lease.path)?;
                continue;
            }
            if lease.holder == Holder::Unreadable {
                log::warn!("{}: not a lease, its address is kept from use", lease.path.display());
            }
            kept.push(lease);
        }
        Ok(kept)
    }

    /// Who holds what by the records.
    fn owners(&self, records: &BTreeMap<String, Option<Record>>) -> BTreeMap<IpAddr, Owner> {
        let mut owners = BTreeMap::new();
        for (name, record) in records {
            if let (Some(Holder::Attachment(owner)), Some(record)) = (record::holder_of(name), record) {
                owners.extend(record.addresses.iter().map(|addr| (*addr, owner.clone())));
            }
        }
        owners
    }

    /// Releases what was held before the machine was booted: no network namespace survives that. Gives back
    /// what cannot be removed.
    fn release_old(&self, name: &str, leases: Vec<Lease>) -> Result<Vec<Lease>, StoreError> {
        let mut stuck = Vec::new();
        for lease in leases {
            match fs::remove_file(&lease.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    log::warn!("cannot remove {}: {error}", lease.path.display());
                    stuck.push(lease);
                }
                _ => log::info!("released {} of {name}: the machine was booted since", lease.addr),
            }
        }
        Ok(stuck)
    }

    /// Brings the record of a holder up to date. Leases that it is not about are stamped with this boot, and
    /// no more is known of them: what was known was of another container of the same name.
    fn keep(&self, name: &str, leases: &[Lease], record: Option<Record>) -> Result<(), StoreError> {
        let path = self.side.owners.join(name);
        if leases.is_empty() {
            return remove(&path);
        }
        let old = record.filter(|record| leases.iter().all(|lease| record.is_of(lease)));
        if old.as_ref().is_some_and(|record| record.addresses.len() == leases.len()) {
            return Ok(());
        }
        let unseen = Record {
            boot: self.boot_time.boot.clone(),
            machine: self.here.id.clone(),
            since: clock(),
            adopted: true,
            ..Record::default()
        };
        let mut record = Record { addresses: Vec::new(), stamps: BTreeMap::new(), ..old.unwrap_or(unseen) };
        for lease in leases {
            record.add(lease.addr, lease.stamp);
        }
        record.write(&path)
    }

    /// Makes every table anew. How long an address has been free is not known across a boot.
    fn remake_tables(&mut self, held: &BTreeSet<IpAddr>) -> Result<(), StoreError> {
        self.tables.clear();
        if self.index.boot != self.boot_time.boot {
            self.index = Index::default();
        }
        for name in self.index.ranges.clone() {
            let path = self.side.ranges.join(&name);
            let Some(span) = AddressRange::parse(&name) else { continue };
            let table =
                Table::make(&path, span, held, None, self.boot_time.uptime).map_err(at("write", &path))?;
            self.tables.insert(name, table);
        }
        Ok(())
    }
}

/// Whether a record is about this very file: a lease that can be read may be a whole one of another.
fn is_of(record: Option<&Option<Record>>, lease: &Lease) -> bool {
    record.and_then(Option::as_ref).is_some_and(|record| record.is_of(lease))
}
