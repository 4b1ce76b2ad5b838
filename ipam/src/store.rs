//! Who holds what: a directory with a file for each address, in host-local's layout.
//!
//! `<dataDir>/<network>/<address>` holds `container id CR LF interface`; very old files hold the id alone.
//! `last_reserved_ip.<set>` holds the address handed out last, and `lock` is locked with flock(2) for as long as a
//! [`Store`] lives, by host-local too. Addresses are the only names that count as leases.
//!
//! A lease is written under another name and then linked into place, so that no lease is ever seen half written,
//! and the link decides who wins. Leases are not synced to disk: they need not outlive a crash of the machine, after
//! which no container is left to hold one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni_conf::cni::env::is_identifier;

mod error;
mod holder;
#[cfg(test)]
mod tests;

pub use error::StoreError;
use error::at;
pub use holder::{Holder, Owner};

/// The file that everybody locks.
const LOCK: &str = "lock";
/// Where the next lease is written before it is linked into place. One name is enough, the lock sees to that; the
/// leading dot keeps it from being taken for an address.
const CLAIM: &str = ".claim";
/// Longest lease read, in bytes; a real one has at most an id, CR LF and an interface name.
const MAX_LEASE: u64 = 4096;

/// The leases of one network, locked against every other process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// The lock ends with the descriptor, and so with the process, however that ends.
    _lock: File,
}

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

/// One address and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub addr: IpAddr,
    /// Its holder.
    pub holder: Holder,
    path: PathBuf,
}

impl Store {
    /// Opens and locks the leases of a network, making the directory when there is none.
    ///
    /// # Errors
    /// When it cannot be made, or the lock not be taken.
    pub fn create(data_dir: &Path, network: &str) -> Result<Store, StoreError> {
        let dir = directory(data_dir, network)?;
        make(&dir)?;
        Store::lock(dir)
    }

    /// Opens and locks the leases of a network; `None` when there never was one.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub fn open(data_dir: &Path, network: &str) -> Result<Option<Store>, StoreError> {
        let dir = directory(data_dir, network)?;
        match fs::metadata(&dir) {
            Ok(_) => Store::lock(dir).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &dir)(error)),
        }
    }

    /// Whether a lease could be written; waits for no lock.
    ///
    /// # Errors
    /// What an ADD would fail with.
    pub fn probe(data_dir: &Path, network: &str) -> Result<(), StoreError> {
        let dir = directory(data_dir, network)?;
        make(&dir)?;
        let path = dir.join(format!(".probe-{}", std::process::id()));
        write_new(&path, b"probe")?;
        remove(&path)
    }

    fn lock(dir: PathBuf) -> Result<Store, StoreError> {
        let path = dir.join(LOCK);
        // host-local opens it without writing; neither of us needs what it holds.
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = options.map_err(at("open", &path))?;
        lock.lock().map_err(at("lock", &path))?;
        Ok(Store { dir, _lock: lock })
    }

    /// Takes one address, if it is free. Whoever holds it keeps it.
    ///
    /// # Errors
    /// When the lease cannot be written or linked.
    pub fn claim(&self, addr: IpAddr, owner: &Owner) -> Result<Claim, StoreError> {
        let path = self.dir.join(addr.to_string());
        if let Some(claim) = self.existing(&path, owner)? {
            return Ok(claim);
        }
        let draft = self.dir.join(CLAIM);
        // Left by one of us who was killed. Removed, not truncated: it may be a second name of a lease.
        remove(&draft)?;
        write_new(&draft, owner.record().as_bytes())?;
        let linked = fs::hard_link(&draft, &path);
        remove(&draft)?;
        match linked {
            Ok(()) => Ok(Claim::Won),
            // Somebody who does not know the lock.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Claim::Taken),
            Err(error) => Err(at("create", &path)(error)),
        }
    }

    /// What stands at an address already. An empty file is a lease that somebody died over: while we hold the lock
    /// nobody can be writing it, so it is removed.
    fn existing(&self, path: &Path, owner: &Owner) -> Result<Option<Claim>, StoreError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at("read", path)(error)),
            Ok(found) if !found.is_file() => return Ok(Some(Claim::Taken)),
            Ok(_) => {}
        }
        match read_holder(path) {
            Holder::Nobody => {
                log::warn!("{}: an empty lease, reclaimed", path.display());
                remove(path)?;
                Ok(None)
            }
            Holder::Attachment(holder) if holder == *owner => Ok(Some(Claim::AlreadyMine)),
            _ => Ok(Some(Claim::Taken)),
        }
    }

    /// Undoes a [`Claim::Won`].
    ///
    /// # Errors
    /// When the lease cannot be removed.
    pub fn give_back(&self, addr: IpAddr) -> Result<(), StoreError> {
        remove(&self.dir.join(addr.to_string()))
    }

    /// Removes every lease of an attachment, or, when there is none, those that name its container alone. Tells
    /// which.
    ///
    /// # Errors
    /// The first lease that could not be removed, after trying all.
    pub fn release(&self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let leases = self.leases()?;
        let exact = leases.iter().any(|lease| matches!(&lease.holder, Holder::Attachment(o) if o == owner));
        let mine = |holder: &Holder| match holder {
            Holder::Attachment(other) => other == owner,
            Holder::Container(id) => !exact && *id == owner.container_id,
            Holder::Nobody | Holder::Unreadable => false,
        };
        let (released, errors) = remove_where(&leases, mine);
        errors.into_iter().next().map_or(Ok(released), Err)
    }

    /// Removes every lease whose holder is not to be kept, going on past errors. Tells which, and the errors.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn retain(
        &self,
        keep: impl Fn(&Holder) -> bool,
    ) -> Result<(Vec<IpAddr>, Vec<StoreError>), StoreError> {
        Ok(remove_where(&self.leases()?, |holder| !keep(holder)))
    }

    /// Every lease, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read. A lease that cannot be read is [`Holder::Unreadable`].
    pub fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let mut leases = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at("read", &self.dir))? {
            let entry = entry.map_err(at("read", &self.dir))?;
            let Some(addr) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let path = entry.path();
            let holder = if is_file { read_holder(&path) } else { Holder::Unreadable };
            leases.push(Lease { addr, holder, path });
        }
        Ok(leases)
    }

    /// The address of a range set that was handed out last. A hint: an unreadable one is none.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.dir.join(last_reserved(set))).ok()?.trim().parse().ok()
    }

    /// Notes the address of a range set that was handed out last.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self, set: usize, addr: IpAddr) -> Result<(), StoreError> {
        let path = self.dir.join(last_reserved(set));
        let draft = self.dir.join(format!(".{}", last_reserved(set)));
        remove(&draft)?;
        write_new(&draft, addr.to_string().as_bytes())?;
        fs::rename(&draft, &path).map_err(at("write", &path))
    }
}

fn last_reserved(set: usize) -> String {
    format!("last_reserved_ip.{set}")
}

/// The directory of a network. The name was checked where it came in; a second look costs nothing, and what is at
/// stake is removing files elsewhere.
fn directory(data_dir: &Path, network: &str) -> Result<PathBuf, StoreError> {
    if is_identifier(network) {
        Ok(data_dir.join(network))
    } else {
        Err(StoreError::Network(network.to_owned()))
    }
}

fn make(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(at("create", dir))
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(at("create", path))?;
    file.write_all(content).map_err(|error| {
        // A full disk; what is left behind is in nobody's way, and the next claim removes it.
        let _ = fs::remove_file(path);
        at("write", path)(error)
    })
}

/// Removes a file; one that is gone is as good.
fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_where(leases: &[Lease], gone: impl Fn(&Holder) -> bool) -> (Vec<IpAddr>, Vec<StoreError>) {
    let (mut released, mut errors) = (Vec::new(), Vec::new());
    for lease in leases.iter().filter(|lease| gone(&lease.holder)) {
        match remove(&lease.path) {
            Ok(()) => released.push(lease.addr),
            Err(error) => errors.push(error),
        }
    }
    (released, errors)
}

fn read_holder(path: &Path) -> Holder {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_LEASE).read_to_end(&mut bytes)) {
        Ok(_) => Holder::parse(&bytes),
        Err(error) => {
            let error: io::Error = error;
            log::warn!("cannot read {}: {error}", path.display());
            Holder::Unreadable
        }
    }
}
