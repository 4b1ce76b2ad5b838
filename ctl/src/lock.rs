//! The lock of install and uninstall: one at a time.
//!
//! It is on the manifest's directory. Installs in several DaemonSets' containers share that directory and
//! nothing else for certain.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cni_skel::lock::{self, Share};

use crate::files;
use crate::manifest::FOLDER;

/// The time limit. An install writes a dozen megabytes to a disk that may be slow. An uninstall with
/// `--force` calls DEL for each pod.
const LIMIT: Duration = Duration::from_secs(60);

/// Held while the manifest and its files are read and changed.
#[derive(Debug)]
pub(crate) struct InstallLock {
    _folder: File,
}

impl InstallLock {
    /// Acquires the lock, waiting up to [`LIMIT`]. Creates the directory.
    ///
    /// # Errors
    /// If another process held it until the time limit.
    pub(crate) fn acquire() -> Result<InstallLock> {
        let path = Path::new(FOLDER);
        files::create_dir(path)?;
        let folder = File::open(path).with_context(|| format!("lock {FOLDER}"))?;
        Ok(InstallLock { _folder: lock::take(path, folder, Share::Exclusive, LIMIT)? })
    }
}
