//! One change to the node's bridges at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};

/// Where everything of ours is that goes with the boot.
pub const FOLDER: &str = "/run/vlan-bridge";

/// How long to wait for the lock. A holder sends a handful of netlink messages, so fifty first ADDs at once are through within
/// a second: who has not got it by then waits for a process that is stopped. A failed ADD may wait a second time, to leave its
/// VLANs, and twice this is still less than the two minutes that kubelet gives a call.
const LIMIT: Duration = Duration::from_secs(20);

/// Shared with others, or alone.
#[derive(Clone, Copy)]
enum Share {
    Others,
    Nobody,
}

/// Held while bridges, sub-interfaces or the VLANs of an uplink are changed. The kernel lets go of it when the
/// process ends, however it ends. ADD and DEL take it every time on a trunk, and ADD on a bridge that is a VLAN's gateway;
/// anywhere else only an ADD that finds bridge or uplink incomplete.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

impl NodeLock {
    /// Takes the lock, waiting for it up to [`LIMIT`]; after that the runtime is asked to try again later.
    pub fn acquire() -> Result<NodeLock, CniError> {
        Ok(NodeLock { _file: take("node.lock", Share::Nobody)? })
    }
}

/// Held while records of attachments and the rules made from them are changed: shared with others for one's own attachment, alone
/// for those of all.
#[derive(Debug)]
pub struct RecordLock {
    _file: File,
}

impl RecordLock {
    /// For one's own attachment.
    pub fn shared() -> Result<RecordLock, CniError> {
        Ok(RecordLock { _file: take("attachments.lock", Share::Others)? })
    }

    /// For all attachments.
    pub fn alone() -> Result<RecordLock, CniError> {
        Ok(RecordLock { _file: take("attachments.lock", Share::Nobody)? })
    }
}

impl Share {
    fn try_lock(self, file: &File) -> Result<(), TryLockError> {
        match self {
            Share::Others => file.try_lock_shared(),
            Share::Nobody => file.try_lock(),
        }
    }

    fn lock(self, file: &File) -> std::io::Result<()> {
        match self {
            Share::Others => file.lock_shared(),
            Share::Nobody => file.lock(),
        }
    }
}

fn take(name: &str, share: Share) -> Result<File, CniError> {
    let path = format!("{FOLDER}/{name}");
    let failed = |e: std::io::Error| CniError::new(code::IO_FAILURE, format!("lock {path}: {e}"));
    DirBuilder::new().recursive(true).mode(0o700).create(FOLDER).map_err(failed)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    match share.try_lock(&file) {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    // The kernel wakes those who wait in turn, which fifty who look again and again would not do for each other; but it has no wait
    // that ends. So a thread waits. If it has the lock too late, nobody takes it from it, and the file is closed again.
    let (waiting, turn) = mpsc::channel();
    let wait = move || drop(waiting.send(share.lock(&file).map(|()| file)));
    thread::Builder::new().spawn(wait).map_err(failed)?;
    turn.recv_timeout(LIMIT).map_or_else(
        |_| {
            let waited = LIMIT.as_secs();
            let why = format!("lock {path}: another process has held it for {waited} s");
            Err(CniError::new(code::TRY_AGAIN_LATER, why))
        },
        |locked| locked.map_err(failed),
    )
}
