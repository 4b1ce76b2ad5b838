//! Giving back what dead owners hold.

use std::net::IpAddr;

use super::error::StoreError;
use super::holder::Owner;
use super::record::{self, Found, Record};
use super::{Store, files};

impl Store {
    /// Releases what is held by attachments whose network namespace is gone. One of which that cannot be
    /// known keeps what it has: its ADD told no namespace, or told one that another mount namespace saw.
    /// Reads every record.
    ///
    /// # Errors
    /// When the records cannot be listed. A lease that cannot be removed is logged and stays.
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
        self.doubt(&released)?;
        Ok(released)
    }

    /// Releases what one attachment holds, if its namespace is gone.
    ///
    /// # Errors
    /// The first lease that could not be removed, after trying all.
    pub fn release_dead(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let name = record::of_owner(owner);
        let mut released = Vec::new();
        if self.dead(&name).is_some() {
            self.release_record(&name, &mut released).into_iter().next().map_or(Ok(()), Err)?;
        }
        self.doubt(&released)?;
        Ok(released)
    }

    /// The namespace of a record's owner, if that is gone for certain.
    fn dead(&self, name: &str) -> Option<String> {
        let Found::Record(record) = Record::read(&self.side.owners.join(name)) else { return None };
        let netns = record.netns.as_ref()?;
        let is_dead = !self.is_elsewhere(&record) && netns.is_alive() == Some(false);
        is_dead.then(|| netns.path.clone())
    }
}
