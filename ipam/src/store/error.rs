//! What can go wrong with the directory.

use std::io;
use std::path::{Path, PathBuf};

use cni_conf::cni::error::{CniError, code};
use cni_skel::lock::{Held, LockError};

use super::holder::Owner;

/// A failure of the store, with the path.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The network's name is no file name.
    #[error("{0:?} is not a network name")]
    Network(String),
    /// Anybody could plant links there.
    #[error("ipam.dataDir: {} is writable by everybody: only its owner may write there", .0.display())]
    WorldWritable(PathBuf),
    /// It may lead anywhere.
    #[error("{} is a symbolic link: ipam.dataDir holds directories and files alone", .0.display())]
    Link(PathBuf),
    /// Another machine gave it the addresses that it has.
    #[error(
        "{owner} holds addresses in {} since another machine, {machine}, gave them: no two machines may share ipam.dataDir; if that \
         one is gone, or this is a copy of its folder: vlan-bridge-ipam release --machine {machine}", dir.display())]
    Elsewhere {
        /// Who holds them.
        owner: Owner,
        /// The store.
        dir: PathBuf,
        /// The identity of the machine.
        machine: String,
    },
    /// Somebody has had a lock for too long.
    #[error(transparent)]
    Busy(#[from] Held),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: read, create, lock …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
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
            StoreError::Busy(..) => code::TRY_AGAIN_LATER,
            StoreError::Link(_) | StoreError::Io { .. } => code::IO_FAILURE,
        };
        CniError::new(code, error.to_string())
    }
}

/// For `map_err`: says what was tried on which file.
pub(super) fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}
