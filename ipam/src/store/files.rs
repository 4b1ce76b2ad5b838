//! The files in a directory of leases, and how they are read, made and removed.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use kernel::open;

use super::error::{StoreError, at};
use super::holder::Holder;

/// Longest lease read, in bytes; a real one has at most an id, CR LF and an interface name.
const MAX_LEASE: u64 = 4096;

/// The next version of a file of ours, on its way. It is no record's name, as the leading dot is no container
/// id's.
const DRAFT: &str = ".draft";

/// One address and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    /// The address.
    pub(super) addr: IpAddr,
    /// Its holder.
    pub(super) holder: Holder,
    pub(super) path: PathBuf,
    /// Whether it is a file at all.
    pub(super) is_file: bool,
    /// Which file it is.
    pub(super) stamp: Stamp,
}

/// One file, and no later one of the same name: inode and modification time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    pub(super) inode: u64,
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

impl Stamp {
    pub(super) fn of(found: &Metadata) -> Stamp {
        Stamp { inode: found.ino(), seconds: found.mtime(), nanoseconds: found.mtime_nsec() }
    }
}

/// Every lease in a directory, in no order. A lease that cannot be read is [`Holder::Unreadable`].
pub(super) fn scan(dir: &Path) -> Result<Vec<Lease>, StoreError> {
    let mut leases = Vec::new();
    for entry in fs::read_dir(dir).map_err(at("read", dir))? {
        let entry = entry.map_err(at("read", dir))?;
        let Some(addr) = address_of(&entry) else { continue };
        let path = entry.path();
        let found = match entry.metadata() {
            // Somebody who does not know the lock.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found.map_err(at("read", &path))?,
        };
        let is_file = found.is_file();
        let holder = if is_file { read_holder(&path) } else { Holder::Unreadable };
        leases.push(Lease { addr, holder, path, is_file, stamp: Stamp::of(&found) });
    }
    Ok(leases)
}

/// Every address that has a lease, whoever holds it.
pub(super) fn addresses(dir: &Path) -> Result<Vec<IpAddr>, StoreError> {
    let entries = fs::read_dir(dir).map_err(at("read", dir))?;
    Ok(entries.filter_map(|entry| address_of(&entry.ok()?)).collect())
}

/// The names in a directory, but for those that are no text. All at once: who asks may well remove some.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(dir).map_err(at("read", dir))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Addresses are the only names that are leases, and only as we and host-local write them.
fn address_of(entry: &fs::DirEntry) -> Option<IpAddr> {
    let name = entry.file_name();
    let addr: IpAddr = name.to_str()?.parse().ok()?;
    (name.to_str()? == addr.to_string()).then_some(addr)
}

/// Who holds the lease at a path; `None` when there is none.
pub(super) fn holder_at(path: &Path) -> Result<Option<Holder>, StoreError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
        Ok(found) if !found.is_file() => Ok(Some(Holder::Unreadable)),
        Ok(_) => Ok(Some(read_holder(path))),
    }
}

fn read_holder(path: &Path) -> Holder {
    match open::read(path, MAX_LEASE) {
        Ok(bytes) => Holder::parse(&bytes),
        Err(error) => {
            log::warn!("cannot read {}: {error}", path.display());
            Holder::Unreadable
        }
    }
}

/// Makes a directory that is its owner's alone, and those above it.
pub(super) fn make_private(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at("create", dir))
}

/// Makes a file, which must not be there.
pub(super) fn open_new(path: &Path) -> Result<File, StoreError> {
    open::options().write(true).create_new(true).open(path).map_err(at("create", path))
}

/// Makes a file with this content, in the place of a file that was left there. Tells which it is.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<Stamp, StoreError> {
    let mut file = match open_new(path) {
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
            remove(path)?;
            open_new(path)?
        }
        file => file?,
    };
    let written = file.write_all(content).and_then(|()| file.metadata());
    written.map(|found| Stamp::of(&found)).map_err(|error| {
        // A full disk; what is left behind is in nobody's way, and the next one removes it.
        let _ = fs::remove_file(path);
        at("write", path)(error)
    })
}

/// Puts a file with this content in the place of what was there, which stays when that fails. Not synced.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = path.with_file_name(DRAFT);
    write_new(&draft, content)?;
    fs::rename(&draft, path).map_err(|error| {
        let _ = fs::remove_file(&draft);
        at("write", path)(error)
    })
}

/// Removes a file; one that is gone is as good.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}
