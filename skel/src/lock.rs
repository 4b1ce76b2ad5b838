//! Locks with flock(2) on a file: the kernel releases such a lock when its holder ends, however it ends. A
//! process that waits for a lock gives up after a time limit, with an error that names the holders.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};

mod holder;

pub use holder::Holders;

/// The time limit of calls that change something. A holder needs milliseconds, and fifty calls at once
/// finish within a second. A call that waits longer waits for a stopped process. A failed ADD may wait a
/// second time to undo its work. Twice this limit is still less than the two minutes that kubelet gives a
/// call.
pub const LIMIT: Duration = Duration::from_secs(20);
/// The time limit of STATUS. kubelet asks for it every few seconds, and marks the node as not ready after
/// half a minute without an answer.
pub const STATUS_LIMIT: Duration = Duration::from_secs(4);
/// The time limit of commands that only read: a user waits for them.
pub const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// The stack of the waiting thread.
const STACK: usize = 64 << 10;

/// How a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Several processes may hold it at a time.
    Shared,
    /// One process holds it.
    Exclusive,
}

/// Why a lock could not be acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process held it until the time limit.
    #[error(transparent)]
    Held(#[from] Held),
    /// The operating system refused.
    #[error("lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A lock that was not acquired within the time limit.
#[derive(Debug, thiserror::Error)]
#[error("lock {}: another process has held it for {} s: {holders}", path.display(), waited.as_secs())]
pub struct Held {
    /// The file.
    pub path: PathBuf,
    /// The time limit.
    pub waited: Duration,
    /// The processes that hold it.
    pub holders: Holders,
}

impl Held {
    /// Finds the processes that hold the lock on a file.
    pub fn see(path: &Path, file: &File, waited: Duration) -> Held {
        Held { path: path.to_owned(), waited, holders: Holders::of(file) }
    }
}

impl From<LockError> for CniError {
    fn from(error: LockError) -> CniError {
        let code = match error {
            LockError::Held(_) => code::TRY_AGAIN_LATER,
            LockError::Io { .. } => code::IO_FAILURE,
        };
        CniError::new(code, error.to_string())
    }
}

impl Share {
    fn try_lock(self, file: &File) -> Result<(), TryLockError> {
        match self {
            Share::Shared => file.try_lock_shared(),
            Share::Exclusive => file.try_lock(),
        }
    }

    fn lock(self, file: &File) -> io::Result<()> {
        match self {
            Share::Shared => file.lock_shared(),
            Share::Exclusive => file.lock(),
        }
    }
}

/// Locks an open file, waiting for `limit` at most. Closing the file releases the lock.
///
/// # Errors
/// [`LockError::Held`] if another process held it until the time limit.
pub fn take(path: &Path, file: File, share: Share, limit: Duration) -> Result<File, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    match share.try_lock(&file) {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The kernel wakes a waiting process at once, which polling would not do. flock(2) has no timeout, so a
    // thread waits. If it gets the lock too late, nobody receives the file, and dropping it releases the
    // lock.
    let seen = file.try_clone().map_err(failed)?;
    let (waiting, turn) = mpsc::channel();
    let wait = move || drop(waiting.send(share.lock(&file).map(|()| file)));
    thread::Builder::new().stack_size(STACK).spawn(wait).map_err(failed)?;
    match turn.recv_timeout(limit) {
        Ok(locked) => locked.map_err(failed),
        Err(_) => Err(Held::see(path, &seen, limit).into()),
    }
}

/// Device and inode of a file.
fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for a thread to start.
    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_lock_that_is_held_is_refused_in_time_and_its_holder_is_named() {
        let path = std::env::temp_dir().join(format!("skel-lock-{}", std::process::id()));
        let open = || File::options().create(true).append(true).open(&path).unwrap();
        let shared = take(&path, open(), Share::Shared, SHORT).unwrap();
        let both = take(&path, open(), Share::Shared, SHORT).unwrap();
        drop(both);
        let error = take(&path, open(), Share::Exclusive, SHORT).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains(&format!("{} (", std::process::id())), "{text}");
        assert_eq!(CniError::from(error).code, code::TRY_AGAIN_LATER);
        drop(shared);
        take(&path, open(), Share::Exclusive, SHORT).unwrap();
        fs::remove_file(&path).unwrap();
    }
}
