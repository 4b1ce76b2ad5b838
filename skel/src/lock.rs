//! Every lock of ours: flock(2) on a file, so that the kernel lets go of it when its holder ends, however it
//! ends. Who waits for one waits for a time, and is told then who holds it.

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

/// How long a call waits that changes something. A holder needs milliseconds, so fifty calls at once are
/// through within a second: who has not got it by then waits for a process that is stopped. A failed ADD may
/// wait a second time, to undo, and twice this is still less than the two minutes that kubelet gives a call.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How long STATUS waits: kubelet asks for it every few seconds, and takes a node without answer for half a
/// minute for dead.
pub const STATUS_LIMIT: Duration = Duration::from_secs(4);
/// How long who only looks waits: a person sits there.
pub const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// A thread that waits needs next to no stack.
const STACK: usize = 64 << 10;

/// With others, or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Shared with others that share it.
    Shared,
    /// Exclusive.
    Exclusive,
}

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has had it all the time.
    #[error(transparent)]
    Held(#[from] Held),
    /// The operating system refused.
    #[error("lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A lock that was not to be had in time.
#[derive(Debug, thiserror::Error)]
#[error("lock {}: another process has held it for {} s: {holders}", path.display(), waited.as_secs())]
pub struct Held {
    /// The file.
    pub path: PathBuf,
    /// How long it was waited for.
    pub waited: Duration,
    /// Who holds it.
    pub holders: Holders,
}

impl Held {
    /// Looks who holds the lock on a file.
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

/// Locks an open file, waiting for `limit` at most. The lock is had until the file is closed.
///
/// # Errors
/// [`LockError::Held`] when it was not to be had in time.
pub fn take(path: &Path, file: File, share: Share, limit: Duration) -> Result<File, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    match share.try_lock(&file) {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The kernel wakes those who wait, which fifty who look again and again would not do for each other; but
    // it has no wait that ends. So a thread waits. If it has the lock too late, nobody takes it from it, and
    // the file is closed again.
    let seen = file.try_clone().map_err(failed)?;
    let (waiting, turn) = mpsc::channel();
    let wait = move || drop(waiting.send(share.lock(&file).map(|()| file)));
    thread::Builder::new().stack_size(STACK).spawn(wait).map_err(failed)?;
    match turn.recv_timeout(limit) {
        Ok(locked) => locked.map_err(failed),
        Err(_) => Err(Held::see(path, &seen, limit).into()),
    }
}

/// Which file a descriptor leads to.
fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for a thread to be started, and no longer.
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
