//! Giving back what dead owners hold.

use std::net::IpAddr;

use super::error::StoreError;
use super::record::{self, Found, Record};
use super::{Store, files};

impl Store {
    /// Releases what is held by attachments whose network namespace is gone. One of which that cannot be known keeps
    /// what it has: its ADD told no namespace, or told one that another mount namespace saw. Reads every record.
    ///
    /// # Errors
    /// When the records cannot be listed. A lease that cannot be removed is logged and stays.
    pub fn reclaim(&mut self) -> Result<Vec<IpAddr>, StoreError> {
        let mut released = Vec::new();
        if !self.known {
            return Ok(released);
        }
        for name in files::names(&self.side.owners)? {
            let Found::Record(record) = Record::read(&self.side.owners.join(&name)) else { continue };
            let Some(netns) = &record.netns else { continue };
            if self.is_elsewhere(&record) || netns.is_alive() != Some(false) {
                continue;
            }
            let before = released.len();
            for error in self.release_record(&name, &mut released) {
                log::warn!("{error}");
            }
            for addr in &released[before..] {
                let owner = record::holder_of(&name);
                log::warn!("released {addr} of {owner:?}: its namespace {} is gone", netns.path);
            }
        }
        self.doubt(&released)?;
        Ok(released)
    }
}
