//! The lock of the node's agent: `/run/vlan-bridge/agent/NODE/lock`.

use std::fs::File;
use std::time::Duration;

use cni_conf::cni::error::CniError;
use cni_skel::lock::Share;

use crate::lock::take_in;
use crate::record::node_folder;

/// Held by the agent of a node. A node has one.
#[derive(Debug)]
pub struct AgentLock {
    _file: File,
}

impl AgentLock {
    /// Takes the lock at once.
    ///
    /// # Errors
    /// `code::TRY_AGAIN_LATER` if the node has an agent.
    pub fn acquire() -> Result<AgentLock, CniError> {
        let folder = node_folder("agent")?;
        Ok(AgentLock { _file: take_in(&folder, "lock", Share::Exclusive, Duration::ZERO)? })
    }
}
