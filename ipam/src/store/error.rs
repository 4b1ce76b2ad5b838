//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};
use cni_skel::lock::{Held, LockError};

use super::holder::Owner;

/// A failure of the store, with the path.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The network's name is no valid file name.
    #[error("{0:?} is not a network name")]
    Network(String),
    /// Everybody could create links there.
    #[error("ipam.dataDir: {} is writable by everybody: make it writable only by its owner", .0.display())]
    WorldWritable(PathBuf),
    /// A link may lead anywhere.
    #[error("{} is a symbolic link: ipam.dataDir may contain only directories and files", .0.display())]
    Link(PathBuf),
    /// Another machine assigned its addresses.
    #[error(
        "{owner} holds addresses in {} that another machine, {machine}, assigned. Machines must not share ipam.dataDir. If that \
         machine is gone, or this is a copy of its folder, run: vlan-bridge-ipam release --machine {machine}", dir.display())]
    Elsewhere {
        /// The holder.
        owner: Owner,
        /// The store.
        dir: PathBuf,
        /// The identity of the machine.
        machine: String,
    },
    /// Another process has held a lock for too long.
    #[error(transparent)]
    Busy(#[from] Held),
    /// Nobody knows what is granted, so nothing is given.
    #[error("cannot read what the pool grants, {}: {why}. No address is given until the agent has written it again", path.display())]
    Grants {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else may have the address by now.
    #[error("more than {} s passed since the ADD looked for an address: it takes none", .0.as_secs())]
    Late(Duration),
    /// The operating system returned an error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation: read, create, lock …
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

impl From<LockError> for StoreError {
    fn from(error: LockError) -> StoreError {
        match error {
            LockError::Held(held) => StoreError::Busy(held),
            LockError::Io { path, source } => StoreError::Io { action: "lock", path, source },
        }
    }
}

impl From<StoreError> for CniError {
    fn from(error: StoreError) -> CniError {
        let code = match error {
            StoreError::Network(_) | StoreError::WorldWritable(_) => code::INVALID_CONFIG,
            StoreError::Elsewhere { .. } => code::ALREADY_ALLOCATED,
            StoreError::Busy(..) | StoreError::Late(_) => code::TRY_AGAIN_LATER,
            StoreError::Link(_) | StoreError::Grants { .. } | StoreError::Io { .. } => code::IO_FAILURE,
        };
        CniError::new(code, error.to_string())
    }
}

/// For `map_err`: adds the operation and the path.
pub(super) fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}
