//! The leases: a directory with a file for each address, in host-local's layout, and additional state.
//!
//! `<dataDir>/<network>/<address>` holds `container id CR LF interface`. Very old files hold only the id.
//! `last_reserved_ip.<set>` holds the address that was assigned last. While a [`Store`] lives, it locks the
//! file `lock` with flock(2), as host-local does. These files decide who holds an address.
//!
//! `<dataDir>/.vlan-bridge/<network>/` is the plugin's own folder. No network's name can begin with a dot.
//! The folder has a [`HolderRecord`] for each holder, a `table` for each range, and an `index` that says
//! whether both still describe the leases. They no longer do after host-local has changed a lease, or after a
//! plugin process was killed. They are then rebuilt from the leases (`reconcile`). With them, a verb reads
//! only the files of its own holder, however many others there are.
//!
//! `docs/ipam.md` has the order of all steps, and the state after a kill between any two of them.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cni_conf::cni::env::is_identifier;
use cni_skel::lock::{self, LIMIT, STATUS_LIMIT, Share};
use kernel::open;

mod boot_time;
mod claim;
mod error;
mod files;
mod holder;
mod index;
mod inspect;
mod machine;
mod netns;
mod pool;
mod ranges;
mod reclaim;
mod reconcile;
mod record;
mod release;
mod rights;
mod share;
mod table;
#[cfg(test)]
mod tests;
mod turn;
mod usage;
mod verdict;

pub use boot_time::uptime;
pub(crate) use boot_time::{BootTime, clock};
pub use claim::ClaimOutcome;
pub use error::StoreError;
use error::at;
use files::{holder_at, remove, write_new};
pub use holder::{Holder, Owner};
use index::Index;
pub use inspect::{Cooling, Inspector, Known};
use machine::ThisMachine;
pub use netns::Netns;
pub use pool::Pool;
pub use record::HolderRecord;
use record::RecordFile;
pub(crate) use rights::{Rights, moment};
pub(crate) use share::ShareFiles;
use table::RangeTable;
pub(crate) use table::WINDOW;
pub use usage::{SharedUsage, Usage};
use verdict::Verdicts;
pub use verdict::{Listened, Quarantined, Window};

/// The file that every user of the directory locks.
const LOCK: &str = "lock";
/// The next lease is written here and then linked into place. The lock makes one name sufficient. The leading
/// dot distinguishes it from an address.
const CLAIM: &str = ".claim";
/// Enough for the longest address and white space.
const MAX_LAST: u64 = 64;
/// The plugin's own folder in the data directory.
const SIDE: &str = ".vlan-bridge";

/// The leases of one network, locked against every other process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// The open directory, for its times.
    handle: File,
    side: StateDir,
    boot_time: BootTime,
    here: ThisMachine,
    index: Index,
    tables: BTreeMap<String, RangeTable>,
    /// What a shared pool lets the node give of each set, as it was when this call first asked.
    rights: BTreeMap<usize, Option<Arc<Rights>>>,
    /// The probing verdicts, read on first use.
    verdicts: Option<Verdicts>,
    /// Whether records and tables describe the leases. If they could not be updated, for example because the
    /// disk is full, leases can still be released, but more slowly.
    known: bool,
    /// Whether the directory of leases has changed since it was marked.
    changed: bool,
    /// The lock ends with the descriptor, and so with the process.
    _lock: File,
}

/// The paths of the plugin's own files.
#[derive(Debug)]
struct StateDir {
    dir: PathBuf,
    index: PathBuf,
    owners: PathBuf,
    ranges: PathBuf,
    verdicts: PathBuf,
    /// The probing lock.
    turn: PathBuf,
}

impl Store {
    /// Opens and locks the leases of a network. Creates the directory if it does not exist.
    ///
    /// # Errors
    /// If the directory cannot be created, the lock not taken, or the state not updated.
    pub fn create(data_dir: &Path, network: &str) -> Result<Store, StoreError> {
        let dir = directory(data_dir, network)?;
        make(&dir)?;
        let mut store = Store::lock(data_dir, network, dir, LIMIT)?;
        if !store.known {
            store.reconcile()?;
        }
        Ok(store)
    }

    /// Opens and locks the leases of a network. Waits for the lock for `limit`. `None` if there is no such
    /// directory.
    ///
    /// # Errors
    /// If the lock cannot be taken.
    pub fn open(data_dir: &Path, network: &str, limit: Duration) -> Result<Option<Store>, StoreError> {
        let dir = directory(data_dir, network)?;
        match fs::symlink_metadata(&dir) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at("read", &dir)(error)),
        }
        let mut store = Store::lock(data_dir, network, dir, limit)?;
        if !store.known
            && let Err(error) = store.reconcile()
        {
            log::warn!("{error}; reading every lease of network {network} instead");
        }
        Ok(Some(store))
    }

    /// Checks that a lease could be written, and that the lock is available within a short time.
    ///
    /// # Errors
    /// The error that an ADD would return.
    pub fn probe(data_dir: &Path, network: &str) -> Result<(), StoreError> {
        let dir = directory(data_dir, network)?;
        make(&dir)?;
        open_directory(&dir)?;
        StateDir::of(data_dir, network).check(data_dir)?;
        // Not in the directory of leases: that would look like a change by another program.
        let side = data_dir.join(SIDE);
        files::make_private(&side)?;
        let path = side.join(format!(".probe-{}", std::process::id()));
        write_new(&path, b"probe")?;
        remove(&path)?;
        // A missing lock file is not created, because that would also change the directory. No process can
        // hold it anyway.
        let path = dir.join(LOCK);
        match open::options().write(true).open(&path) {
            Ok(lock) => {
                lock::take(&path, lock, Share::Exclusive, STATUS_LIMIT).map(drop).map_err(StoreError::from)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at("open", &path)(error)),
        }
    }

    fn lock(data_dir: &Path, network: &str, dir: PathBuf, limit: Duration) -> Result<Store, StoreError> {
        let boot_time = BootTime::now();
        let path = dir.join(LOCK);
        // host-local opens it without write access. Neither plugin uses its content.
        let handle = open_directory(&dir)?;
        let lock = open::to_write(&path).map_err(at("open", &path))?;
        let lock = lock::take(&path, lock, Share::Exclusive, limit)?;
        let now = handle.metadata().map_err(at("read", &dir))?;
        let side = StateDir::of(data_dir, network);
        let is_whole = side.check(data_dir)?;
        let here = ThisMachine::see(&side.dir);
        let index = Index::read(&side.index);
        let known = is_whole
            && index.as_ref().is_some_and(|index| {
                index.describes(&now) && here.is(&index.machine) && !boot_time.is_after(&index.boot)
            });
        let index = index.unwrap_or_default();
        Ok(Store {
            dir,
            handle,
            side,
            boot_time,
            here,
            index,
            tables: BTreeMap::new(),
            rights: BTreeMap::new(),
            verdicts: None,
            known,
            changed: false,
            _lock: lock,
        })
    }

    /// The addresses of an attachment, whether or not its lease names the interface.
    ///
    /// # Errors
    /// If a lease cannot be read, and [`StoreError::Elsewhere`].
    pub fn held_by(&mut self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        if !self.known {
            let leases = files::scan(&self.dir)?.into_iter();
            return Ok(leases
                .filter(|lease| lease.holder.holds_for(owner) && !self.is_lease_elsewhere(lease))
                .map(|lease| lease.addr)
                .collect());
        }
        let mut held = Vec::new();
        for name in [record::of_owner(owner), record::of_container(&owner.container_id)] {
            let record = self.record(&name)?.unwrap_or_default();
            if self.is_elsewhere(&record) {
                let (owner, dir) = (owner.clone(), self.dir.clone());
                return Err(StoreError::Elsewhere { owner, dir, machine: record.machine });
            }
            for addr in record.addresses {
                if holder_at(&self.lease(addr))?.is_some_and(|holder| holder.holds_for(owner)) {
                    held.push(addr);
                }
            }
        }
        Ok(held)
    }

    /// Whether another attachment holds an address.
    ///
    /// # Errors
    /// If its lease cannot be read.
    pub fn is_held_by_another(&self, addr: IpAddr, owner: &Owner) -> Result<bool, StoreError> {
        let holder = holder_at(&self.lease(addr))?;
        Ok(holder.is_some_and(|holder| holder != Holder::Empty && !holder.holds_for(owner)))
    }

    /// A holder's record. If the record is torn, its content is unknown, so every lease is read.
    fn record(&mut self, name: &str) -> Result<Option<HolderRecord>, StoreError> {
        let path = self.side.owners.join(name);
        match HolderRecord::read(&path) {
            RecordFile::Readable(record) => return Ok(Some(record)),
            RecordFile::Nothing => return Ok(None),
            RecordFile::Torn => self.reconcile()?,
        }
        match HolderRecord::read(&path) {
            RecordFile::Readable(record) => Ok(Some(record)),
            RecordFile::Nothing | RecordFile::Torn => Ok(None),
        }
    }

    /// Every held address, in no order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, StoreError> {
        files::addresses(&self.dir)
    }

    /// The address of a range set that was assigned last, by host-local or by this plugin. It is only a hint,
    /// so an unreadable file counts as none.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let bytes = open::read(&self.dir.join(last_reserved(set)), MAX_LAST).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// Records the address of a range set that was assigned last, for host-local.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_last_reserved(&mut self, set: usize, addr: IpAddr) -> Result<(), StoreError> {
        let path = self.dir.join(last_reserved(set));
        self.changed = true;
        let text = addr.to_string();
        // Not truncated first: ext4 treats a truncation as the start of a new version, and writes that to
        // disk at once.
        open::to_write(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                let len = text.len() as u64;
                if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
            })
            .map_err(at("write", &path))
    }

    /// Ends a call: marks the records and tables as up to date. Without this the next call has to read every
    /// lease, but no lease is lost.
    pub fn finish(mut self) {
        if !self.known || !self.changed {
            return;
        }
        self.index.boot.clone_from(&self.boot_time.boot);
        if !self.here.id.is_empty() {
            self.index.machine.clone_from(&self.here.id);
        }
        let flushed =
            self.tables.values_mut().try_for_each(RangeTable::flush).map_err(at("write", &self.side.ranges));
        let marked = flushed.and_then(|()| self.index.mark(&self.side.index, &self.dir, &self.handle));
        if let Err(error) = marked {
            log::warn!("{error}; the next call reads every lease");
        }
    }

    /// Call this before a change of a table without a change of a lease. If the process is killed meanwhile,
    /// the next one must not trust the tables.
    pub(super) fn unmark(&mut self) -> Result<(), StoreError> {
        if !std::mem::replace(&mut self.changed, true) {
            self.handle.set_modified(SystemTime::now()).map_err(at("unmark", &self.dir))?;
        }
        Ok(())
    }

    fn lease(&self, addr: IpAddr) -> PathBuf {
        self.dir.join(addr.to_string())
    }
}

impl StateDir {
    fn of(data_dir: &Path, network: &str) -> StateDir {
        let dir = data_dir.join(SIDE).join(network);
        StateDir {
            index: dir.join("index"),
            owners: dir.join("owners"),
            ranges: dir.join("ranges"),
            verdicts: dir.join("verdicts"),
            turn: dir.join("probing"),
            dir,
        }
    }

    /// Whether all directories exist. Existing ones must be writable only by their owner.
    fn check(&self, data_dir: &Path) -> Result<bool, StoreError> {
        let mut is_whole = true;
        for dir in [&data_dir.join(SIDE), &self.dir, &self.owners, &self.ranges] {
            match fs::symlink_metadata(dir) {
                Ok(found) => check_directory(dir, &found)?,
                Err(error) if error.kind() == ErrorKind::NotFound => is_whole = false,
                Err(error) => return Err(at("read", dir)(error)),
            }
        }
        Ok(is_whole)
    }
}

/// Opens a directory of leases, unless everybody can write to it or it is a symbolic link.
fn open_directory(dir: &Path) -> Result<File, StoreError> {
    let found = fs::symlink_metadata(dir).map_err(at("read", dir))?;
    check_directory(dir, &found)?;
    open::directory(dir).map_err(at("open", dir))
}

fn check_directory(dir: &Path, found: &Metadata) -> Result<(), StoreError> {
    match found {
        found if found.is_symlink() => Err(StoreError::Link(dir.to_owned())),
        found if found.mode() & 0o002 != 0 => Err(StoreError::WorldWritable(dir.to_owned())),
        _ => Ok(()),
    }
}

fn last_reserved(set: usize) -> String {
    format!("last_reserved_ip.{set}")
}

/// The directory of a network. The name was checked on input. It is checked again here, because a wrong name
/// would remove files elsewhere. A data directory in which everybody
/// could create links is refused for the same reason.
fn directory(data_dir: &Path, network: &str) -> Result<PathBuf, StoreError> {
    if !is_identifier(network) {
        return Err(StoreError::Network(network.to_owned()));
    }
    match fs::metadata(data_dir) {
        Ok(found) if found.mode() & 0o002 != 0 => Err(StoreError::WorldWritable(data_dir.to_owned())),
        _ => Ok(data_dir.join(network)),
    }
}

fn make(dir: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(at("create", dir))
        }
        Err(error) => Err(at("create", dir)(error)),
    }
}
