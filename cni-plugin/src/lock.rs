//! One change to the node's bridges at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use cni_conf::cni::error::{CniError, code};
use cni_skel::lock::{self, LIMIT, Share};

/// Where everything of ours is that goes with the boot.
pub const FOLDER: &str = "/run/vlan-bridge";

/// Held while bridges, sub-interfaces or the VLANs of an uplink are changed. The kernel lets go of it when
/// the process ends, however it ends. ADD and DEL take it every time on a trunk, and ADD on a bridge that is
/// a VLAN's gateway; anywhere else only an ADD that finds bridge or uplink incomplete.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes the lock, waiting for it up to [`LIMIT`]; after that the runtime is asked to try again later.
    pub fn acquire() -> Result<NodeLock, CniError> {
        Ok(NodeLock { _file: take("node.lock", Share::Exclusive)? })
    }
}

/// Held while records of attachments and the rules made from them are changed: shared with others for one's
/// own attachment, alone for those of all.
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
    let path = format!("{FOLDER}/{name}");
    let failed = |e: std::io::Error| CniError::new(code::IO_FAILURE, format!("lock {path}: {e}"));
    DirBuilder::new().recursive(true).mode(0o700).create(FOLDER).map_err(failed)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    Ok(lock::take(Path::new(&path), file, share, LIMIT)?)
}
