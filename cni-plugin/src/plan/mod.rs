//! Pure decisions: compute the steps from the configuration and the observed state. No I/O.

pub mod boundary;
pub mod check;
pub mod difference;
pub mod guard;
pub mod host_access;
pub mod nat;
pub mod observed;
pub mod pod;
mod refusal;
pub mod status;
pub mod step;
#[cfg(test)]
pub mod testing;
pub mod uplink;
pub mod vlan;

pub use step::{Step, Sysctl, VlanMember};

use cni_conf::cni::error::{CniError, code};

/// Steps to take, and what an operator should know although nothing is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are taken.
    pub steps: Vec<Step>,
    /// For the log.
    pub warnings: Vec<String>,
}

/// The configuration asks for what this node cannot be made to give.
pub(crate) fn refuse<T>(message: impl Into<String>) -> Result<T, CniError> {
    Err(CniError::new(code::INVALID_CONFIG, message.into()))
}
