//! One change to the node's bridges at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use cni_conf::cni::error::{CniError, code};

const FOLDER: &str = "/run/vlan-bridge";

/// Held while bridges, sub-interfaces or the VLANs of an uplink are changed. The kernel lets go of it when the
/// process ends, however it ends. Attachments to a bridge that is complete never take it.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Waits for the lock. Each holder sends a handful of netlink messages, so that is milliseconds.
    pub fn acquire() -> Result<NodeLock, CniError> {
        let path = format!("{FOLDER}/node.lock");
        let failed = |e: std::io::Error| CniError::new(code::IO_FAILURE, format!("lock {path}: {e}"));
        DirBuilder::new().recursive(true).mode(0o700).create(FOLDER).map_err(failed)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(NodeLock { _file: file })
    }
}
