//! The files in a directory of leases: reads, creates and removes them.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use cni_skel::draft;
use kernel::open;

use super::error::{StoreError, at};
use super::holder::Holder;

/// Longest lease read, in bytes. A real one has at most an id, CR LF and an interface name.
const MAX_LEASE: u64 = 4096;

/// A file of this size is written in one call, so that a kill never leaves it half written.
pub(super) const BLOCK: usize = 4096;

/// The next version of one of the plugin's own files, before the rename. No record has this name, because no
/// container id begins with a dot.
const DRAFT: &str = ".draft";

/// The lease of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    /// The address.
    pub(super) addr: IpAddr,
    /// Its holder.
    pub(super) holder: Holder,
    pub(super) path: PathBuf,
    /// Whether it is a regular file.
    pub(super) is_file: bool,
    /// The stamp of its file.
    pub(super) stamp: Stamp,
}

/// Distinguishes a file from a later one of the same name: inode and modification time.
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
            // A program that does not use the lock removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found.map_err(at("read", &path))?,
        };
        let is_file = found.is_file();
        let holder = if is_file { read_holder(&path) } else { Holder::Unreadable };
        leases.push(Lease { addr, holder, path, is_file, stamp: Stamp::of(&found) });
    }
    Ok(leases)
}

/// Every address that has a lease, of any holder.
pub(super) fn addresses(dir: &Path) -> Result<Vec<IpAddr>, StoreError> {
    let entries = fs::read_dir(dir).map_err(at("read", dir))?;
    Ok(entries.filter_map(|entry| address_of(&entry.ok()?)).collect())
}

/// The names in a directory that are valid UTF-8. All of them are read before the call returns, because the
/// caller may remove some.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(dir).map_err(at("read", dir))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Only a name that is an address is a lease, and only in the form that this plugin and host-local write.
fn address_of(entry: &fs::DirEntry) -> Option<IpAddr> {
    let name = entry.file_name();
    let addr: IpAddr = name.to_str()?.parse().ok()?;
    (name.to_str()? == addr.to_string()).then_some(addr)
}

/// The holder of the lease at a path. `None` if there is no lease.
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

/// Creates a directory with access only for its owner, and its parents.
pub(super) fn make_private(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at("create", dir))
}

/// Creates a file with this content and returns its stamp. Removes a file that was left behind there.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<Stamp, StoreError> {
    let mut file = draft::create(path, &mut open::options()).map_err(at("create", path))?;
    let written = file.write_all(content).and_then(|()| file.metadata());
    written.map(|found| Stamp::of(&found)).map_err(|error| {
        // The disk is full. If the remove fails as well, the leftover is harmless, and the next call removes
        // it.
        let _ = fs::remove_file(path);
        at("write", path)(error)
    })
}

/// Replaces the file at a path. If this fails, the old file stays. The new file is not synced.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = path.with_file_name(DRAFT);
    draft::replace(path, &draft, |draft| write_new(draft, content), at("write", path)).map(drop)
}

/// Changes a file of one block in one call, so that a kill never leaves it half written. Another file is
/// replaced, for which the file system writes its journal.
pub(super) fn overwrite(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let is_one_block = |file: &File| {
        let found = file.metadata();
        content.len() == BLOCK && found.is_ok_and(|found| found.is_file() && found.len() == BLOCK as u64)
    };
    match open::options().write(true).open(path).ok().filter(is_one_block) {
        Some(file) => file.write_all_at(content, 0).map_err(at("write", path)),
        None => replace(path, content),
    }
}

/// Removes a file. A missing file is no error.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}
