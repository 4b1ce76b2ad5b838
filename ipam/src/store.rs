//! Who holds what: a directory with a file for each address, in host-local's layout, and what we know beyond
//! that.
//!
//! `<dataDir>/<network>/<address>` holds `container id CR LF interface`; very old files hold the id alone.
//! `last_reserved_ip.<set>` holds the address handed out last, and `lock` is locked with flock(2) for as long
//! as a [`Store`] lives, by host-local too. These files are the truth about who holds what.
//!
//! `<dataDir>/.vlan-bridge/<network>/` is ours alone; no network can have a name that begins with a dot. It
//! holds a [`Record`] for each holder, a `table` for each range, and an `index` that says whether both
//! still describe the leases. If not, because host-local was here or one of us was killed, they are made
//! anew (`reconcile`). With them a verb looks at its own holder's files alone, however many others there are.
//!
//! `docs/ipam.md` has the order of all steps, and what each kill between two of them leaves.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
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
mod ranges;
mod reclaim;
mod reconcile;
mod record;
mod release;
mod table;
#[cfg(test)]
mod tests;
mod turn;
mod verdict;

pub(crate) use boot_time::{BootTime, clock};
pub use claim::Claim;
pub use error::StoreError;
use error::at;
use files::{holder_at, remove, write_new};
pub use holder::{Holder, Owner};
use index::Index;
pub use inspect::{Cooling, Inspector, Known};
use machine::Here;
pub use netns::Netns;
pub use ranges::{Pool, Usage};
use record::Found;
pub use record::Record;
use table::Table;
use verdict::Verdicts;
pub use verdict::{Quarantined, Window};

/// The file that everybody locks.
const LOCK: &str = "lock";
/// Where the next lease is written before it is linked into place. One name is enough, the lock sees to that;
/// the leading dot keeps it from being taken for an address.
const CLAIM: &str = ".claim";
/// The longest address, and some space.
const MAX_LAST: u64 = 64;
/// Our own directory in the data directory.
const SIDE: &str = ".vlan-bridge";

/// The leases of one network, locked against every other process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// The directory itself, for its times.
    handle: File,
    side: StateDir,
    boot_time: BootTime,
    here: Here,
    index: Index,
    tables: BTreeMap<String, Table>,
    /// What probing has found, once somebody asks.
    verdicts: Option<Verdicts>,
    /// Whether records and tables describe the leases. If they could not be brought up to date, a full disk
    /// being the most likely reason, leases can still be released, the slow way.
    known: bool,
    /// Whether the directory of leases was changed since it was marked.
    changed: bool,
    /// The lock ends with the descriptor, and so with the process, however that ends.
    _lock: File,
}

/// Where the files are that are ours alone.
#[derive(Debug)]
struct StateDir {
    dir: PathBuf,
    index: PathBuf,
    owners: PathBuf,
    ranges: PathBuf,
    verdicts: PathBuf,
    /// Locked by who is probing.
    turn: PathBuf,
}

impl Store {
    /// Opens and locks the leases of a network, making the directory when there is none.
    ///
    /// # Errors
    /// When it cannot be made, the lock not be taken, or what is known not be brought up to date.
    pub fn create(data_dir: &Path, network: &str) -> Result<Store, StoreError> {
        let dir = directory(data_dir, network)?;
        make(&dir)?;
        let mut store = Store::lock(data_dir, network, dir, LIMIT)?;
        if !store.known {
            store.reconcile()?;
        }
        Ok(store)
    }

    /// Opens and locks the leases of a network, waiting for the lock for `limit`; `None` when there never was
    /// one.
    ///
    /// # Errors
    /// When the lock cannot be taken.
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
            log::warn!("{error}; every lease of network {network} is looked at instead");
        }
        Ok(Some(store))
    }

    /// Whether a lease could be written, and the lock be had in a short time.
    ///
    /// # Errors
    /// What an ADD would fail with.
    pub fn probe(data_dir: &Path, network: &str) -> Result<(), StoreError> {
        let dir = directory(data_dir, network)?;
        make(&dir)?;
        open_directory(&dir)?;
        StateDir::of(data_dir, network).check(data_dir)?;
        // Not in the directory of leases: that would look like somebody else's change.
        let side = data_dir.join(SIDE);
        files::make_private(&side)?;
        let path = side.join(format!(".probe-{}", std::process::id()));
        write_new(&path, b"probe")?;
        remove(&path)?;
        // Not made where it is not there, which nobody can hold either: that would be a change of the
        // directory, too.
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
        // host-local opens it without writing; neither of us needs what it holds.
        let handle = open_directory(&dir)?;
        let lock = open::to_write(&path).map_err(at("open", &path))?;
        let lock = lock::take(&path, lock, Share::Exclusive, limit)?;
        let now = handle.metadata().map_err(at("read", &dir))?;
        let side = StateDir::of(data_dir, network);
        let is_whole = side.check(data_dir)?;
        let here = Here::see(&side.dir);
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
            verdicts: None,
            known,
            changed: false,
            _lock: lock,
        })
    }

    /// What an attachment holds, whether or not its lease names the interface too.
    ///
    /// # Errors
    /// When a lease cannot be read, and [`StoreError::Elsewhere`].
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

    /// Whether somebody else holds an address.
    ///
    /// # Errors
    /// When its lease cannot be looked at.
    pub fn is_anothers(&self, addr: IpAddr, owner: &Owner) -> Result<bool, StoreError> {
        let holder = holder_at(&self.lease(addr))?;
        Ok(holder.is_some_and(|holder| holder != Holder::Nobody && !holder.holds_for(owner)))
    }

    /// A holder's record. One that is torn may have named anything, so everything is looked at.
    fn record(&mut self, name: &str) -> Result<Option<Record>, StoreError> {
        let path = self.side.owners.join(name);
        match Record::read(&path) {
            Found::Record(record) => return Ok(Some(record)),
            Found::Nothing => return Ok(None),
            Found::Torn => self.reconcile()?,
        }
        match Record::read(&path) {
            Found::Record(record) => Ok(Some(record)),
            Found::Nothing | Found::Torn => Ok(None),
        }
    }

    /// Every address that is held, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, StoreError> {
        files::addresses(&self.dir)
    }

    /// The address of a range set that was handed out last, by host-local or by us. A hint: an unreadable one
    /// is none.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let bytes = open::read(&self.dir.join(last_reserved(set)), MAX_LAST).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// Notes for host-local the address of a range set that was handed out last.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&mut self, set: usize, addr: IpAddr) -> Result<(), StoreError> {
        let path = self.dir.join(last_reserved(set));
        self.changed = true;
        let text = addr.to_string();
        // Not truncated to nothing first: ext4 takes that for the promise of a new version, and writes it to
        // disk.
        open::to_write(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                let len = text.len() as u64;
                if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
            })
            .map_err(at("write", &path))
    }

    /// Ends a call: from here on the records and tables describe the leases. Nothing goes wrong without it,
    /// but the next call has to look at every lease.
    pub fn finish(mut self) {
        if !self.known || !self.changed {
            return;
        }
        self.index.boot.clone_from(&self.boot_time.boot);
        if !self.here.id.is_empty() {
            self.index.machine.clone_from(&self.here.id);
        }
        let flushed =
            self.tables.values_mut().try_for_each(Table::flush).map_err(at("write", &self.side.ranges));
        let marked = flushed.and_then(|()| self.index.mark(&self.side.index, &self.dir, &self.handle));
        if let Err(error) = marked {
            log::warn!("{error}; the next call looks at every lease");
        }
    }

    /// Before a table is changed though no lease is: who comes after a kill must not take the tables for
    /// right.
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

    /// Whether all directories are there. Those that are must be ours alone.
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

/// Opens a directory of leases, unless anybody could plant something there, or has put a link in its place.
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

/// The directory of a network. The name was checked where it came in; a second look costs nothing, and what
/// is at stake is removing files elsewhere. So it is where anybody could plant links.
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
