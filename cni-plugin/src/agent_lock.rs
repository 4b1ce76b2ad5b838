//! The lock of the node's agent: `/run/vlan-bridge/agent/NODE/lock`.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};
use cni_skel::lock::Share;

use crate::lock::take_in;
use crate::record::{node_folder, remove_node_folder};

/// The folder's name below `/run/vlan-bridge`.
const KIND: &str = "agent";
/// How long an agent waits for the lock. [`AgentLock::is_held`] has it for a moment.
const LIMIT: Duration = Duration::from_secs(1);

/// Held by the agent of a node. A node has one.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

impl AgentLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// `code::TRY_AGAIN_LATER` if the node has an agent.
    pub fn acquire() -> Result<AgentLock, CniError> {
        let folder = AgentLock::folder()?;
        Ok(AgentLock { _file: take_in(&folder, "lock", Share::Exclusive, LIMIT)? })
    }

    /// Whether an agent runs on this node.
    pub fn is_held() -> Result<bool, CniError> {
        let folder = AgentLock::folder()?;
        if !folder.exists() {
            return Ok(false);
        }
        match take_in(&folder, "lock", Share::Shared, Duration::ZERO) {
            Ok(_) => Ok(false),
            Err(error) if error.code == code::TRY_AGAIN_LATER => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes what an agent left. No agent may run.
    pub fn remove_folder() -> Result<(), CniError> {
        remove_node_folder(KIND)
    }

    /// The folder of the lock, where the agent keeps its own files too.
    pub fn folder() -> Result<PathBuf, CniError> {
        node_folder(KIND)
    }
}
