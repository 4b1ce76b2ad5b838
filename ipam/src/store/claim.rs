//! Taking an address.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use super::error::{StoreError, at};
use super::files::{holder_at, remove, write_new};
use super::holder::{Holder, Owner};
use super::record::{self, Record};
use super::{CLAIM, Store};

/// The outcome of [`Store::claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The address was free and is the claimant's now.
    Won,
    /// It was the claimant's before.
    AlreadyMine,
    /// Somebody else holds it.
    Taken,
}

impl Store {
    /// Takes one address, if it is free, and notes it in the attachment's record first. Whoever holds it keeps it.
    ///
    /// # Errors
    /// When record or lease cannot be written.
    pub fn claim(&mut self, addr: IpAddr, owner: &Owner, record: &mut Record) -> Result<Claim, StoreError> {
        record.boot.clone_from(&self.moment.boot);
        record.addresses.push(addr);
        let path = self.side.owners.join(record::of_owner(owner));
        let outcome = record.write(&path).and_then(|()| self.link(addr, owner));
        if !matches!(outcome, Ok(Claim::Won | Claim::AlreadyMine)) {
            record.addresses.pop();
            if record.addresses.is_empty() { remove(&path) } else { record.write(&path) }?;
        }
        if outcome.is_ok() {
            self.note_held(addr);
        }
        outcome
    }

    fn link(&mut self, addr: IpAddr, owner: &Owner) -> Result<Claim, StoreError> {
        let (draft, path) = (self.dir.join(CLAIM), self.lease(addr));
        self.changed = true;
        write_new(&draft, owner.record().as_bytes())?;
        let mut linked = fs::hard_link(&draft, &path);
        if let Err(error) = &linked
            && error.kind() == ErrorKind::AlreadyExists
        {
            match holder_at(&path)? {
                Some(Holder::Attachment(holder)) if holder == *owner => {
                    remove(&draft)?;
                    return Ok(Claim::AlreadyMine);
                }
                // While we hold the lock nobody can be writing it.
                Some(Holder::Nobody) => {
                    log::warn!("{}: an empty lease, reclaimed", path.display());
                    remove(&path)?;
                    linked = fs::hard_link(&draft, &path);
                }
                _ => {}
            }
        }
        remove(&draft)?;
        match linked {
            Ok(()) => Ok(Claim::Won),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Claim::Taken),
            Err(error) => Err(at("create", &path)(error)),
        }
    }
}
