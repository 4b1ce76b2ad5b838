//! The locks of the node: only one process changes its bridges at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};
use cni_skel::lock::{self, LIMIT, Share};

/// The folder of all state that lasts until reboot.
pub const FOLDER: &str = "/run/vlan-bridge";

/// Held while bridges, sub-interfaces or the VLANs of an uplink are changed. The kernel releases it when
/// the process ends. On a trunk, each ADD and DEL takes it, and on a bridge that is a VLAN's gateway each
/// ADD. Otherwise, only an ADD that finds bridge or uplink incomplete takes it.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes the lock. Waits up to [`LIMIT`], then asks the runtime to try again later.
    pub fn acquire() -> Result<NodeLock, CniError> {
        Ok(NodeLock { _file: take("node.lock", Share::Exclusive)? })
    }
}

/// Held while records of attachments and their rules are changed: shared for changes to one's own
/// attachment, exclusive for changes to all.
#[derive(Debug)]
pub struct RecordLock {
    _file: File,
}

impl RecordLock {
    /// For one's own attachment.
    pub fn shared() -> Result<RecordLock, CniError> {
        Ok(RecordLock { _file: take("attachments.lock", Share::Shared)? })
    }

    /// For all attachments.
    pub fn exclusive() -> Result<RecordLock, CniError> {
        Ok(RecordLock { _file: take("attachments.lock", Share::Exclusive)? })
    }
}

fn take(name: &str, share: Share) -> Result<File, CniError> {
    take_in(Path::new(FOLDER), name, share, LIMIT)
}

/// Takes the lock on a file, and creates both if they are missing.
pub(crate) fn take_in(folder: &Path, name: &str, share: Share, limit: Duration) -> Result<File, CniError> {
    let path = folder.join(name);
    let failed = |e: std::io::Error| CniError::new(code::IO_FAILURE, format!("lock {}: {e}", path.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    Ok(lock::take(&path, file, share, limit)?)
}
