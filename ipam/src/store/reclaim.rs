//! Releases the leases of dead owners.

use std::net::IpAddr;

use super::error::StoreError;
use super::holder::Owner;
use super::record::{self, HolderRecord, RecordFile};
use super::{Store, files};

impl Store {
    /// Releases the leases of attachments whose network namespace is gone. Leases stay if this is unknown,
    /// because the ADD had no namespace, or because another mount namespace saw it. Reads every record.
    ///
    /// # Errors
    /// If the records cannot be listed. A lease that cannot be removed is logged and stays.
    pub fn reclaim(&mut self) -> Result<Vec<IpAddr>, StoreError> {
        let mut released = Vec::new();
        if !self.known {
            return Ok(released);
        }
        for name in files::names(&self.side.owners)? {
            if let Some(path) = self.dead(&name) {
                let before = released.len();
                for error in self.release_record(&name, &mut released) {
                    log::warn!("{error}");
                }
                for addr in &released[before..] {
                    let owner = record::holder_of(&name);
                    log::warn!("released {addr} of {owner:?}: its namespace {path} is gone");
                }
            }
        }
        // Its holder may still answer.
        self.drop_clear(|addr| released.contains(&addr))?;
        Ok(released)
    }

    /// Releases the leases of one attachment if its namespace is gone.
    ///
    /// # Errors
    /// The first lease that could not be removed, after an attempt at all of them.
    pub fn release_dead(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let name = record::of_owner(owner);
        let mut released = Vec::new();
        if self.dead(&name).is_some() {
            self.release_record(&name, &mut released).into_iter().next().map_or(Ok(()), Err)?;
        }
        // Its holder may still answer.
        self.drop_clear(|addr| released.contains(&addr))?;
        Ok(released)
    }

    /// The namespace of a record's owner, if it is certainly gone.
    fn dead(&self, name: &str) -> Option<String> {
        let RecordFile::Readable(record) = HolderRecord::read(&self.side.owners.join(name)) else {
            return None;
        };
        let netns = record.netns.as_ref()?;
        let is_dead = !self.is_elsewhere(&record) && netns.is_alive() == Some(false);
        is_dead.then(|| netns.path.clone())
    }
}
