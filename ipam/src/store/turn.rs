//! Whose turn it is to probe.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cni_skel::lock::Held;
use kernel::open;

use super::error::{StoreError, at};
use super::{StateDir, Store};

/// Who waits for the turn to probe waits for the network, so a little more is nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The longest pause between two looks: fifty who wait must not keep from working the one they wait for.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
impl Store {
    /// Waits for its turn to probe, or for what the process whose turn it is finds: `None` when the verdicts
    /// have changed meanwhile, so that a burst does not queue for a turn that most of it will not need. The
    /// turn ends with the descriptor, and so with the process. The leases are not locked: whoever probes
    /// waits for the network.
    ///
    /// # Errors
    /// When the lock cannot be taken, or there is neither for so long: its holder waits for the network, or
    /// was stopped.
    pub fn turn_to_probe(
        data_dir: &Path,
        network: &str,
        longest: Duration,
    ) -> Result<Option<File>, StoreError> {
        let StateDir { turn: path, verdicts, .. } = StateDir::of(data_dir, network);
        let turn = open::to_write(&path).map_err(at("open", &path))?;
        let before = identity(&verdicts);
        let deadline = Instant::now() + longest;
        let mut pause = LOOK_AGAIN;
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
}

/// What a file that is only ever replaced changes by.
fn identity(path: &Path) -> Option<(u64, i64, i64)> {
    fs::metadata(path).ok().map(|file| (file.ino(), file.mtime(), file.mtime_nsec()))
}
