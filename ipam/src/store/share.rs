//! The agent's files, and its part in a network's store.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cni_skel::draft;
use kernel::open;
use serde_json::Value;
use vlan_bridge_pool::grants::{Confirmation, Grants};
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::runs::Runs;

use super::error::{StoreError, at};
use super::files::{make_private, remove};
use super::pool::Pool;
use super::rights::{CONFIRMATION, GRANTS, Rights, holder_name, path_of, read_grants};
use super::{SIDE, StateDir, Store, directory, make};

/// Longest identity read, in bytes.
const MAX_IDENTITY: u64 = 4096;
/// Tenths of a second that an address rests on a node before it goes to another one.
const REST: u32 = 600;

/// The agent's files for one range set.
#[derive(Debug)]
pub(crate) struct ShareFiles {
    data_dir: PathBuf,
    network: String,
    set: usize,
}

impl ShareFiles {
    pub(crate) fn of(data_dir: &Path, network: &str, set: usize) -> ShareFiles {
        ShareFiles { data_dir: data_dir.to_owned(), network: network.to_owned(), set }
    }

    /// The name under which the pool knows the set.
    pub(crate) fn holder(&self) -> String {
        holder_name(&self.network, self.set)
    }

    /// The plugin's folder in a data directory.
    pub(crate) fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join(SIDE)
    }

    pub(crate) fn grants(&self) -> Result<Option<Grants>, StoreError> {
        read_grants(&self.side().dir, &self.network, self.set)
    }

    pub(crate) fn store_grants(&self, grants: &Grants) -> Result<(), StoreError> {
        let path = path_of(&self.prepare()?, GRANTS, self.set);
        replace(&path, &grants.to_json(), Sync::Yes)
    }

    pub(crate) fn confirm(&self, confirmation: &Confirmation) -> Result<(), StoreError> {
        let path = path_of(&self.prepare()?, CONFIRMATION, self.set);
        replace(&path, &confirmation.to_json(), Sync::No)
    }

    pub(crate) fn withdraw(&self) -> Result<(), StoreError> {
        remove(&path_of(&self.side().dir, CONFIRMATION, self.set))
    }

    pub(crate) fn identity(data_dir: &Path) -> Result<Option<Identity>, StoreError> {
        let path = identity_path(data_dir);
        match open::read(&path, MAX_IDENTITY) {
            Ok(bytes) => Identity::parse(&bytes)
                .map(Some)
                .map_err(|error| at("read", &path)(io::Error::other(error.to_string()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    pub(crate) fn save_identity(data_dir: &Path, identity: &Identity) -> Result<(), StoreError> {
        make(data_dir)?;
        make_private(&ShareFiles::folder(data_dir))?;
        replace(&identity_path(data_dir), &identity.to_json(), Sync::Yes)
    }

    fn side(&self) -> StateDir {
        StateDir::of(&self.data_dir, &self.network)
    }

    /// The folder of the files. It is made if it does not exist.
    fn prepare(&self) -> Result<PathBuf, StoreError> {
        // Checks the network's name.
        directory(&self.data_dir, &self.network)?;
        let side = self.side();
        side.check(&self.data_dir)?;
        if !side.dir.exists() {
            make(&self.data_dir)?;
            make_private(&side.dir)?;
            let folder = ShareFiles::folder(&self.data_dir);
            [&folder, &self.data_dir].into_iter().try_for_each(|dir| sync_folder(dir))?;
        }
        Ok(side.dir)
    }
}

fn identity_path(data_dir: &Path) -> PathBuf {
    ShareFiles::folder(data_dir).join(".pool-identity")
}

/// Whether a file must outlive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Yes,
    No,
}

/// Replaces a file of the agent. There is one agent, so the draft has no other writer.
fn replace(path: &Path, content: &Value, sync: Sync) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.draft"));
    let write = |draft: &Path| {
        let mut file = draft::create(draft, &mut open::options())?;
        file.write_all(content.to_string().as_bytes())?;
        if sync == Sync::Yes { file.sync_all() } else { Ok(()) }
    };
    draft::replace(path, &draft, |draft| write(draft).map_err(at("write", draft)), at("write", path))?;
    match (sync, path.parent()) {
        (Sync::Yes, Some(folder)) => sync_folder(folder),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    open::directory(folder).and_then(|folder: File| folder.sync_all()).map_err(at("sync", folder))
}

impl Store {
    /// Lets the tables of a set offer what is granted and has no lease, and nothing else.
    ///
    /// # Errors
    /// If the grants cannot be read, or a table not be changed.
    pub(crate) fn offer_granted(&mut self, pool: &Pool<'_>) -> Result<Option<Arc<Rights>>, StoreError> {
        for range in &pool.set.0 {
            self.table(range, pool)?;
        }
        self.rights(pool)
    }

    /// How many addresses of a set are in the queues of its tables.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub(crate) fn queued(&mut self, pool: &Pool<'_>) -> Result<u32, StoreError> {
        let mut queued: u32 = 0;
        for range in &pool.set.0 {
            queued = queued.saturating_add(self.table(range, pool)?.queued());
        }
        Ok(queued)
    }

    /// Whether anybody holds an address, be it certain or not.
    ///
    /// # Errors
    /// If its lease cannot be read.
    pub(crate) fn is_leased(&self, addr: IpAddr) -> Result<bool, StoreError> {
        Ok(super::files::holder_at(&self.lease(addr))?.is_some())
    }

    /// The addresses of a set that nobody holds and that have rested long enough to go to another node, the
    /// one freed the longest ago first. A leased one that no pod has had stays for a while, or two nodes
    /// would take it from each other again and again. A home address comes back only when its node needs it.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub(crate) fn rested(&mut self, pool: &Pool<'_>) -> Result<Vec<IpAddr>, StoreError> {
        let (now, ranges) = (self.boot_time.uptime, self.side.ranges.clone());
        let aside = self.quarantined_of(pool)?;
        let freed = self.rested_since(pool.cooldown).min(now.saturating_sub(REST));
        let mut rested = Vec::new();
        for range in &pool.set.0 {
            let table = self.table(range, pool)?;
            rested.extend(table.rested(freed, now).map_err(at("read", &ranges))?);
        }
        let rights = self.rights(pool)?;
        let grants = rights.as_ref().and_then(|rights| rights.grants());
        let is_home = |addr| grants.is_some_and(|grants| grants.home.contains(addr));
        rested.retain(|rested| {
            let stays = rested.at > now.saturating_sub(REST) && !is_home(rested.addr);
            pool.set.offers(rested.addr) && !aside.contains(&rested.addr) && !stays
        });
        rested.sort_by_key(|rested| rested.at);
        Ok(rested.into_iter().map(|rested| rested.addr).collect())
    }

    /// The unproven addresses of a set that somebody holds: an ADD took them after a silent probe.
    ///
    /// # Errors
    /// If a lease cannot be read.
    pub(crate) fn proven(&mut self, pool: &Pool<'_>) -> Result<Runs, StoreError> {
        let Some(rights) = self.rights(pool)? else { return Ok(Runs::EMPTY) };
        let mut proven = Runs::EMPTY;
        for addr in rights.grants().map(|grants| &grants.unproven).into_iter().flat_map(Runs::iter) {
            if self.is_leased(addr)? {
                proven.insert(addr);
            }
        }
        Ok(proven)
    }
}
