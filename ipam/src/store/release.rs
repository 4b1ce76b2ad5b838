//! Releases leases.

use std::fs;
use std::net::IpAddr;

use super::error::StoreError;
use super::files::{self, Lease, Stamp, holder_at, remove};
use super::holder::{Holder, Owner};
use super::machine::Age;
use super::record::{HolderRecord, RecordFile};
use super::{Store, record};

impl Store {
    /// Removes every lease of an attachment. If it has none, removes the leases that name only its container.
    /// Returns the released addresses.
    ///
    /// # Errors
    /// The first lease that could not be removed, after an attempt at all of them.
    pub fn release(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        if !self.known {
            return self.release_unknown(owner);
        }
        let mut released = Vec::new();
        for name in [record::of_owner(owner), record::of_container(&owner.container_id)] {
            let errors = self.release_record(&name, &mut released);
            if let Some(error) = errors.into_iter().next() {
                return Err(error);
            }
            if !released.is_empty() {
                break;
            }
        }
        Ok(released)
    }

    /// Removes some of the leases of an attachment. Its record stays.
    ///
    /// # Errors
    /// The first lease that could not be removed.
    pub fn release_some(&mut self, owner: &Owner, addrs: &[IpAddr]) -> Result<(), StoreError> {
        for name in [record::of_owner(owner), record::of_container(&owner.container_id)] {
            for addr in addrs {
                self.free_lease(*addr, &name)?;
            }
        }
        Ok(())
    }

    /// Removes the leases in one record and then the record. In the other order, a kill would leave a lease
    /// that no record names. The record stays while one of its leases does.
    pub(super) fn release_record(&mut self, name: &str, released: &mut Vec<IpAddr>) -> Vec<StoreError> {
        let record = match self.record(name) {
            Ok(Some(record)) => record,
            Ok(None) => return Vec::new(),
            Err(error) => return vec![error],
        };
        if self.is_elsewhere(&record) {
            log::warn!("{name} belongs to another machine, {}, and keeps its leases", record.machine);
            return Vec::new();
        }
        self.release_all_of(name, &record, released)
    }

    fn release_all_of(
        &mut self,
        name: &str,
        record: &HolderRecord,
        released: &mut Vec<IpAddr>,
    ) -> Vec<StoreError> {
        let path = self.side.owners.join(name);
        let mut errors = Vec::new();
        for addr in record.addresses.iter().copied() {
            match self.free_lease(addr, name) {
                Ok(true) => released.push(addr),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            errors.extend(remove(&path).err());
        }
        errors
    }

    /// Removes a lease that a record names, unless it has another holder now.
    pub(super) fn free_lease(&mut self, addr: IpAddr, name: &str) -> Result<bool, StoreError> {
        let path = self.lease(addr);
        match holder_at(&path)? {
            None => return Ok(false),
            Some(holder) if record::file_name(&holder, addr) == name => {}
            Some(Holder::Container(id)) if self.is_all_that_names(&id, name) => {
                log::info!("{}: it names only the container now", path.display());
            }
            Some(holder)
                if record::is_cut(&holder, name)
                    && (holder.names_no_holder() || self.is_the_file(name, addr))
                    && !self.side.owners.join(record::file_name(&holder, addr)).exists() =>
            {
                log::warn!("{}: torn, it belongs to {name}", path.display());
            }
            Some(holder) => {
                log::info!("{}: it belongs to {holder:?} now and stays", path.display());
                return Ok(false);
            }
        }
        self.changed = true;
        remove(&path)?;
        self.note_free(addr);
        Ok(true)
    }

    /// Releases all leases of another machine.
    ///
    /// # Errors
    /// If the records cannot be listed, and the first lease that could not be removed, after an attempt at
    /// all of them.
    pub fn release_machine(&mut self, machine: &str) -> Result<Vec<IpAddr>, StoreError> {
        let (mut released, mut errors) = (Vec::new(), Vec::new());
        for name in files::names(&self.side.owners)? {
            if let RecordFile::Readable(record) = HolderRecord::read(&self.side.owners.join(&name))
                && record.machine == machine
                && self.is_elsewhere(&record)
            {
                errors.extend(self.release_all_of(&name, &record, &mut released));
            }
        }
        // Its holder may still answer.
        self.drop_clear(|addr| released.contains(&addr))?;
        errors.into_iter().next().map_or(Ok(released), Err)
    }

    /// Whether a record belongs to another machine, which alone knows the state of the holder.
    pub(super) fn is_elsewhere(&self, record: &HolderRecord) -> bool {
        self.here.age(&self.boot_time, record) == Age::Elsewhere
    }

    /// The same for the holder of a lease, if only the leases are known.
    pub(super) fn is_lease_elsewhere(&self, lease: &Lease) -> bool {
        let name = record::file_name(&lease.holder, lease.addr);
        matches!(HolderRecord::read(&self.side.owners.join(name)), RecordFile::Readable(record) if self.is_elsewhere(&record))
    }

    /// Whether a lease that names only this container can belong only to this attachment's record. Another
    /// program then overwrote it, and host-local also treats it as that attachment's.
    fn is_all_that_names(&self, id: &str, name: &str) -> bool {
        name.split_once(':').is_some_and(|(container, _)| container == id)
            && !self.side.owners.join(record::of_container(id)).exists()
    }

    /// Whether a record describes the current file of an address's lease.
    fn is_the_file(&self, name: &str, addr: IpAddr) -> bool {
        let RecordFile::Readable(record) = HolderRecord::read(&self.side.owners.join(name)) else {
            return false;
        };
        let found = fs::symlink_metadata(self.lease(addr));
        found.is_ok_and(|found| record.stamp_of(addr) == Some(Stamp::of(&found)))
    }

    /// [`Store::release`] if only the leases themselves are known.
    fn release_unknown(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let leases = files::scan(&self.dir)?;
        let exact = leases.iter().any(|lease| matches!(&lease.holder, Holder::Attachment(o) if o == owner));
        let mut released = Vec::new();
        for lease in leases.iter().filter(|lease| lease.holder.holds_for(owner)) {
            if (!exact || matches!(lease.holder, Holder::Attachment(_))) && !self.is_lease_elsewhere(lease) {
                remove(&lease.path)?;
                released.push(lease.addr);
            }
        }
        Ok(released)
    }

    /// Removes every lease whose holder `keep` rejects, and continues after errors. Returns the released
    /// addresses and the errors. It reads every lease, so it also finds one whose record was lost.
    ///
    /// # Errors
    /// If the holders cannot be listed.
    pub fn retain(
        &mut self,
        keep: impl Fn(&Holder) -> bool,
    ) -> Result<(Vec<IpAddr>, Vec<StoreError>), StoreError> {
        let (mut released, mut errors) = (Vec::new(), Vec::new());
        if let Err(error) = self.reconcile() {
            log::warn!("{error}; GC uses only the leases");
            self.known = false;
        }
        if !self.known {
            for lease in files::scan(&self.dir)?.iter().filter(|lease| !keep(&lease.holder)) {
                if self.is_lease_elsewhere(lease) {
                    continue;
                }
                match remove(&lease.path) {
                    Ok(()) => released.push(lease.addr),
                    Err(error) => errors.push(error),
                }
            }
            return Ok((released, errors));
        }
        for name in files::names(&self.side.owners)? {
            if record::holder_of(&name).is_some_and(|holder| !keep(&holder)) {
                errors.extend(self.release_record(&name, &mut released));
            }
        }
        Ok((released, errors))
    }
}
