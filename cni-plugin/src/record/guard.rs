//! The record of an attachment with a guard.

use cni_conf::cni::error::CniError;
use cni_conf::section::Section;
use serde_json::Value;

use super::Record;
use super::pod::PodInterface;
use crate::ownership::Attachment;
use crate::plan::guard::Limits;

/// What an attachment has in the table `bridge vlan-bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRecord {
    /// The pod's interface.
    pub pod: PodInterface,
    /// What the pod may send.
    pub limits: Limits,
}

impl Record for GuardRecord {
    const FOLDER: &'static str = "guards";

    fn attachment(&self) -> Attachment<'_> {
        self.pod.attachment()
    }

    fn to_json(&self) -> Value {
        let mut keys = self.pod.to_json();
        keys["guard"] = self.limits.to_json();
        keys
    }

    fn from_section(keys: &Section<'_>) -> Result<GuardRecord, CniError> {
        let limits = keys.require("guard", keys.section("guard")?, "an object")?;
        Ok(GuardRecord { pod: PodInterface::from_section(keys)?, limits: Limits::from_section(&limits)? })
    }
}
