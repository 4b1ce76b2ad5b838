//! One install or uninstall at a time.
//!
//! The lock is on the folder of the manifest: of all that installs share, in containers of several DaemonSets too, only that is sure
//! to be one. The kernel lets go of it when the process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::files;
use crate::manifest::FOLDER;

/// How long to wait. An install writes a dozen megabytes to a disk that may be slow; an uninstall with `--force` calls DEL for each pod.
const LIMIT: Duration = Duration::from_secs(60);

/// Held while the manifest, and what it names, is looked at and changed.
#[derive(Debug)]
pub(crate) struct InstallLock {
    _folder: File,
}

impl InstallLock {
    /// Takes the lock, waiting for it up to [`LIMIT`]. Makes the folder.
    ///
    /// # Errors
    /// When another process has held it for so long; its id and command are named, where they can be seen.
    pub(crate) fn acquire() -> Result<InstallLock> {
        let path = Path::new(FOLDER);
        files::make_folder(path)?;
        let failed = || format!("lock {FOLDER}");
        let folder = File::open(path).with_context(failed)?;
        match folder.try_lock() {
            Ok(()) => return Ok(InstallLock { _folder: folder }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        // The kernel wakes those who wait in turn, but has no wait that ends: so a thread waits.
        let (waiting, turn) = mpsc::channel();
        let inode = folder.metadata().with_context(failed)?.ino();
        let wait = move || drop(waiting.send(folder.lock().map(|()| folder)));
        thread::Builder::new().spawn(wait).with_context(failed)?;
        match turn.recv_timeout(LIMIT) {
            Ok(locked) => Ok(InstallLock { _folder: locked.with_context(failed)? }),
            Err(_) => bail!("lock {FOLDER}: {} has held it for {} s", holder(inode), LIMIT.as_secs()),
        }
    }
}

/// Who holds a lock of the file with this inode, as far as our `/proc` shows.
fn holder(inode: u64) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    match holder_in(&locks, inode) {
        Some(pid) => {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", command.trim())
        }
        None => "another process".to_owned(),
    }
}

/// A line of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 4242 00:1f:77 0 EOF`; one with an arrow waits. A process of another PID
/// namespace is 0 there.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    let of = format!(":{inode}");
    locks.lines().filter(|line| line.contains("FLOCK") && !line.contains("->")).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = words.get(4)?.parse().ok()?;
        (words.get(5)?.ends_with(&of) && pid != 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_told_from_who_waits() {
        let locks = "1: FLOCK  ADVISORY  WRITE 12 00:1f:177 0 EOF\n2: FLOCK  ADVISORY  WRITE 42 00:1f:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 00:1f:77 0 EOF\n3: POSIX  ADVISORY  WRITE 44 00:1f:77 0 EOF\n";
        assert_eq!(holder_in(locks, 77), Some(42));
        assert_eq!(holder_in(locks, 78), None);
        assert_eq!(holder_in("1: FLOCK  ADVISORY  WRITE 0 00:1f:77 0 EOF\n", 77), None);
    }
}
