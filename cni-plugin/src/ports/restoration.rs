//! The mark of a restoration: the folder `/run/vlan-bridge/restoring/NODE` exists while ports and bridges are
//! being restored. A killed process leaves it, and may leave a port or a bridge half done, for example down.
//! That looks healthy to a call that compares names only. So the next call compares everything if it finds
//! the folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cni_conf::cni::error::{CniError, code};

use crate::lock::RecordLock;
use crate::record::{create_folder, node_folder};

/// The exclusive lock, with the mark.
pub(super) struct Restoration {
    mark: PathBuf,
    /// Another process was killed.
    was_marked: bool,
    _lock: RecordLock,
}

impl Restoration {
    /// Takes the lock if another process was killed. The cost of a look is one stat.
    pub(super) fn of_killed() -> Result<Option<Restoration>, CniError> {
        let mark = node_folder("restoring")?;
        if !mark.exists() {
            return Ok(None);
        }
        let lock = RecordLock::exclusive()?;
        // The other process may have been alive.
        Ok(mark.exists().then_some(Restoration { mark, was_marked: true, _lock: lock }))
    }

    /// Call this before the first change.
    pub(super) fn begin() -> Result<Restoration, CniError> {
        let mark = node_folder("restoring")?;
        let lock = RecordLock::exclusive()?;
        let was_marked = mark.exists();
        create_folder(&mark).map_err(|e| failed("create", &mark, &e))?;
        Ok(Restoration { mark, was_marked, _lock: lock })
    }

    /// What a killed process left is done with only if `is_complete`: everything was compared under the lock,
    /// and restored.
    pub(super) fn end(self, is_complete: bool) -> Result<(), CniError> {
        if self.was_marked && !is_complete {
            return Ok(());
        }
        match fs::remove_dir(&self.mark) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", &self.mark, &e)),
            _ => Ok(()),
        }
    }
}

fn failed(what: &str, mark: &Path, error: &io::Error) -> CniError {
    CniError::new(code::IO_FAILURE, format!("{what} {}: {error}", mark.display()))
}
