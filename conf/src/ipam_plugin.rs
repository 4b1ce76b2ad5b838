//! `ipam.type`: the plugin that assigns the pod's addresses, and its known properties.

use std::fmt;

use serde_json::Value;

use crate::cni::error::CniError;
use crate::section::Section;

/// An IPAM plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpamPlugin {
    /// `vlan-bridge-ipam`
    Ours,
    /// Another plugin, by its file name in `CNI_PATH`.
    Other(String),
}

impl IpamPlugin {
    /// The name of our IPAM plugin.
    pub const OURS: &str = "vlan-bridge-ipam";

    /// The plugin of that name.
    pub fn named(name: &str) -> IpamPlugin {
        if name == IpamPlugin::OURS { IpamPlugin::Ours } else { IpamPlugin::Other(name.to_owned()) }
    }

    /// Reads the plugin. None if `ipam` is absent or empty: the attachment then is layer 2 only.
    ///
    /// # Errors
    /// `type` is missing, or is not a file name.
    pub(crate) fn parse(section: &Section<'_>) -> Result<Option<IpamPlugin>, CniError> {
        let Some(keys) = section.section("ipam")? else { return Ok(None) };
        let Some(name) = keys.str("type")?.filter(|name| !name.is_empty()) else {
            let empty = section.value("ipam").and_then(Value::as_object).is_none_or(|ipam| ipam.is_empty());
            return if empty {
                Ok(None)
            } else {
                Err(CniError::config(
                    "ipam.type is missing: the name of an IPAM plugin, for example vlan-bridge-ipam",
                ))
            };
        };
        if name.contains('/') || name == "." || name == ".." || name.contains('\0') {
            return Err(CniError::config(format!(
                "ipam.type: {name:?} is not the name of a plugin: a file name in CNI_PATH"
            )));
        }
        if section.value("type").and_then(Value::as_str) == Some(name) {
            return Err(CniError::config(format!(
                "ipam.type: {name:?} is the plugin itself: the name of an IPAM plugin, for example vlan-bridge-ipam"
            )));
        }
        Ok(Some(IpamPlugin::named(name)))
    }

    /// Its file name.
    pub fn name(&self) -> &str {
        match self {
            IpamPlugin::Ours => IpamPlugin::OURS,
            IpamPlugin::Other(name) => name,
        }
    }

    /// Whether it is our plugin. We know what its errors leave behind, and that it does not look at the pod.
    pub fn is_ours(&self) -> bool {
        *self == IpamPlugin::Ours
    }

    /// Whether it uses the pod's interface while it releases its lease.
    pub fn needs_live_link(&self) -> bool {
        self.name() == "dhcp"
    }

    /// Whether the addresses stay as ADD reported them. Another plugin may change them later, as dhcp does.
    pub fn keeps_addresses(&self) -> bool {
        [IpamPlugin::OURS, "host-local", "static"].contains(&self.name())
    }
}

impl fmt::Display for IpamPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
