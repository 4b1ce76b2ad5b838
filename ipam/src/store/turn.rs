//! The probing lock: one ADD probes at a time.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cni_skel::lock::Held;
use kernel::open;

use super::error::{StoreError, at};
use super::{StateDir, Store};

/// The first pause between two attempts. It is short compared with the wait for the network.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause between two attempts: fifty waiting ADDs must not slow down the one that probes.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
impl Store {
    /// Waits for the probing lock, or for the verdicts of the process that holds it. `None` if the verdicts
    /// have changed meanwhile: most ADDs of a burst then need no lock. The lock ends with the descriptor, and
    /// so with the process. The leases are not locked, because the prober waits for the network.
    ///
    /// # Errors
    /// If the lock cannot be taken, or neither happens for `longest`: the holder waits for the network, or
    /// was stopped.
    pub fn lock_probing(
        data_dir: &Path,
        network: &str,
        longest: Duration,
    ) -> Result<Option<File>, StoreError> {
        let StateDir { turn: path, verdicts, .. } = StateDir::of(data_dir, network);
        let turn = open_turn(&path)?;
        let before = identity(&verdicts);
        let deadline = Instant::now() + longest;
        let mut pause = FIRST_PAUSE;
        loop {
            match turn.try_lock() {
                Ok(()) => return Ok(Some(turn)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Held::see(&path, &turn, longest).into());
                }
                Err(TryLockError::WouldBlock) => thread::sleep(pause),
                Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
            }
            if identity(&verdicts) != before {
                return Ok(None);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes the probing lock if no process has it.
    ///
    /// # Errors
    /// If the lock cannot be taken for another reason.
    pub fn try_lock_probing(data_dir: &Path, network: &str) -> Result<Option<File>, StoreError> {
        let StateDir { turn: path, .. } = StateDir::of(data_dir, network);
        let turn = open_turn(&path)?;
        match turn.try_lock() {
            Ok(()) => Ok(Some(turn)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
        }
    }
}

fn open_turn(path: &Path) -> Result<File, StoreError> {
    open::to_write(path).map_err(at("open", path))
}

/// Values of a file that change whenever it is replaced.
fn identity(path: &Path) -> Option<(u64, i64, i64)> {
    fs::metadata(path).ok().map(|file| (file.ino(), file.mtime(), file.mtime_nsec()))
}
