//! Records which VLANs of a trunk's uplink an ADD added, so that DEL removes no others:
//! `/run/vlan-bridge/trunks/NODE/BRIDGE-UPLINK/VID`, an empty file each, where BRIDGE and UPLINK are
//! interface indices. Like the bridge, the records are lost at reboot. The caller holds the node's lock.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use cni_conf::cni::error::{CniError, code};
use kernel::link::Link;

use crate::record::{create_folder, node_folder, remove_file_if_any, remove_node_folder};

/// The parent folder of all bridges' folders.
const KIND: &str = "trunks";

/// The VLANs that ADDs added to one uplink of one bridge.
pub(super) struct Added {
    folder: PathBuf,
}

impl Added {
    /// Does not read the records yet.
    pub(super) fn of(bridge: &Link, uplink: &Link) -> Result<Added, CniError> {
        Ok(Added { folder: node_folder(KIND)?.join(format!("{}-{}", bridge.index, uplink.index)) })
    }

    /// Whether records exist. They do not before the first ADD on a bridge, or after an upgrade from a
    /// release that kept none.
    pub(super) fn is_known(&self) -> bool {
        self.folder.is_dir()
    }

    /// Records that we add these VLANs. Call this before they are added: a superfluous record does no harm.
    pub(super) fn insert(&self, vids: &[u16]) -> Result<(), CniError> {
        let write = || -> io::Result<()> {
            create_folder(&self.folder)?;
            vids.iter().try_for_each(|vid| File::create(self.folder.join(vid.to_string())).map(drop))
        };
        write().map_err(|e| self.failed(&e))
    }

    /// Deletes the records, after the VLANs were removed.
    pub(super) fn remove(&self, vids: &[u16]) -> Result<(), CniError> {
        let remove = |vid: &u16| remove_file_if_any(&self.folder.join(vid.to_string()));
        vids.iter().try_for_each(remove).map_err(|e| self.failed(&e))
    }

    /// Those of these VLANs that we added.
    pub(super) fn among(&self, vids: &[u16]) -> Vec<u16> {
        vids.iter().copied().filter(|vid| self.folder.join(vid.to_string()).exists()).collect()
    }

    fn failed(&self, error: &io::Error) -> CniError {
        CniError::new(code::IO_FAILURE, format!("record VLANs in {}: {error}", self.folder.display()))
    }
}

/// Removes the records of all bridges of this node, when no pod is attached any more.
pub fn remove_all() -> Result<(), CniError> {
    remove_node_folder(KIND)
}
