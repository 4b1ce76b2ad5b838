//! One install or uninstall at a time.
//!
//! The lock is on the folder of the manifest: of all that installs share, in containers of several DaemonSets
//! too, only that is sure to be one.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cni_skel::lock::{self, Share};

use crate::files;
use crate::manifest::FOLDER;

/// How long to wait. An install writes a dozen megabytes to a disk that may be slow; an uninstall with
/// `--force` calls DEL for each pod.
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
    /// When another process has held it for so long.
    pub(crate) fn acquire() -> Result<InstallLock> {
        let path = Path::new(FOLDER);
        files::make_folder(path)?;
        let folder = File::open(path).with_context(|| format!("lock {FOLDER}"))?;
        Ok(InstallLock { _folder: lock::take(path, folder, Share::Exclusive, LIMIT)? })
    }
}
