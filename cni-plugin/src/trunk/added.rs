//! Which VLANs of a trunk's uplink are there because an ADD put them there, so that a DEL takes no other
//! away: `/run/vlan-bridge/trunks/NODE/BRIDGE-UPLINK/VID`, an empty file each, where BRIDGE and UPLINK are
//! interface indices. Like the bridge it goes with the boot. The caller holds the node's lock.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use cni_conf::cni::error::{CniError, code};
use kernel::link::Link;

use crate::record::{node_folder, remove_node_folder};

/// What the folders of all bridges are in.
const KIND: &str = "trunks";

/// The VLANs that ADDs have put on one uplink of one bridge.
pub(super) struct Added {
    folder: PathBuf,
}

impl Added {
    /// Looks nothing up yet.
    pub(super) fn of(bridge: &Link, uplink: &Link) -> Result<Added, CniError> {
        Ok(Added { folder: node_folder(KIND)?.join(format!("{}-{}", bridge.index, uplink.index)) })
    }

    /// Whether anything was written down: not before the first ADD on a bridge, nor after an upgrade from a
    /// release that did not.
    pub(super) fn is_known(&self) -> bool {
        self.folder.is_dir()
    }

    /// Writes down that these are there because of us. Before they are put there: what is written too much is
    /// nobody's.
    pub(super) fn insert(&self, vids: &[u16]) -> Result<(), CniError> {
        let write = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            vids.iter().try_for_each(|vid| File::create(self.folder.join(vid.to_string())).map(drop))
        };
        write().map_err(|e| self.failed(&e))
    }

    /// After they have been taken away.
    pub(super) fn remove(&self, vids: &[u16]) -> Result<(), CniError> {
        let remove = |vid: &u16| match fs::remove_file(self.folder.join(vid.to_string())) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed(&e)),
            _ => Ok(()),
        };
        vids.iter().try_for_each(remove)
    }

    /// Those of these VLANs that are there because of us.
    pub(super) fn among(&self, vids: &[u16]) -> Vec<u16> {
        vids.iter().copied().filter(|vid| self.folder.join(vid.to_string()).exists()).collect()
    }

    fn failed(&self, error: &io::Error) -> CniError {
        CniError::new(code::IO_FAILURE, format!("write down VLANs in {}: {error}", self.folder.display()))
    }
}

/// Removes what is written down about all bridges of this node, when no pod is attached any more.
pub fn remove_all() -> Result<(), CniError> {
    remove_node_folder(KIND)
}
