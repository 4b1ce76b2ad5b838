//! Claims an address.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::{StoreError, at};
use super::files::{Stamp, holder_at, remove, write_new};
use super::holder::{Holder, Owner};
use super::record::{self, HolderRecord};
use super::{CLAIM, Store, clock};

/// The outcome of [`Store::claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The address was free and belongs to the claimant now.
    Won,
    /// It belonged to the claimant already.
    AlreadyMine,
    /// Another attachment holds it.
    Taken,
}

impl Store {
    /// Claims one address if it is free. Adds it to the attachment's record first. A holder keeps its
    /// address.
    ///
    /// # Errors
    /// If record or lease cannot be written.
    pub fn claim(
        &mut self,
        addr: IpAddr,
        owner: &Owner,
        record: &mut HolderRecord,
    ) -> Result<ClaimOutcome, StoreError> {
        let outcome = self.take(addr, owner, record);
        match outcome {
            Ok(_) => self.note_held(addr),
            // It is unknown how far it got, and whether the record has the address. From now on this call
            // uses only the leases, and the next call reads all of them.
            Err(_) => self.known = false,
        }
        outcome
    }

    fn take(
        &mut self,
        addr: IpAddr,
        owner: &Owner,
        record: &mut HolderRecord,
    ) -> Result<ClaimOutcome, StoreError> {
        let path = self.side.owners.join(record::of_owner(owner));
        let draft = self.dir.join(CLAIM);
        self.changed = true;
        let stamp = write_new(&draft, owner.record().as_bytes())?;
        record.boot.clone_from(&self.boot_time.boot);
        record.machine.clone_from(&self.here.id);
        record.add(addr, stamp);
        let outcome = record.write(&path).and_then(|()| {
            self.check_time()?;
            self.link(&draft, addr, owner)
        });
        remove(&draft)?;
        match outcome {
            Ok(ClaimOutcome::Won) => {}
            Ok(ClaimOutcome::AlreadyMine) => {
                let lease = self.lease(addr);
                let found = fs::symlink_metadata(&lease).map_err(at("read", &lease))?;
                record.add(addr, Stamp::of(&found));
                record.write(&path)?;
            }
            Ok(ClaimOutcome::Taken) | Err(_) => {
                record.take(addr);
                let undone = if record.addresses.is_empty() { remove(&path) } else { record.write(&path) };
                return outcome.and_then(|claim| undone.map(|()| claim));
            }
        }
        outcome
    }

    /// Whether the attachment's leases are left over from the last boot. If the plugin did not write a lease,
    /// it compares the lease's time with the boot's by the clock. The clock may have been set, so this is a
    /// hint.
    pub fn is_left_over(&mut self, owner: &Owner, held: &[IpAddr]) -> Result<bool, StoreError> {
        let booted = clock().saturating_sub(u64::from(self.boot_time.uptime / 10));
        for name in [record::of_owner(owner), record::of_container(&owner.container_id)] {
            if self.record(&name)?.is_some_and(|record| !record.adopted) {
                return Ok(false);
            }
        }
        Ok(held.iter().all(|addr| {
            let found = fs::symlink_metadata(self.lease(*addr));
            found.is_ok_and(|found| u64::try_from(found.mtime()).is_ok_and(|written| written < booted))
        }))
    }

    fn link(&self, draft: &Path, addr: IpAddr, owner: &Owner) -> Result<ClaimOutcome, StoreError> {
        let path = self.lease(addr);
        let mut linked = fs::hard_link(draft, &path);
        if let Err(error) = &linked
            && error.kind() == ErrorKind::AlreadyExists
        {
            match holder_at(&path)? {
                Some(Holder::Attachment(holder)) if holder == *owner => return Ok(ClaimOutcome::AlreadyMine),
                // While this process holds the lock, no other process can be writing it.
                Some(Holder::Empty) => {
                    log::warn!("{}: removed an empty lease", path.display());
                    remove(&path)?;
                    linked = fs::hard_link(draft, &path);
                }
                _ => {}
            }
        }
        match linked {
            Ok(()) => Ok(ClaimOutcome::Won),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(ClaimOutcome::Taken),
            Err(error) => Err(at("create", &path)(error)),
        }
    }
}
