//! The `uplink` key: how a bridge reaches the data-centre network.

use std::ops::RangeInclusive;

use crate::cni::error::{CniError, code};
use crate::section::Section;

/// The VLAN ids that a tag can carry to a host (IEEE 802.1Q: 0 is "no VLAN", 4095 is reserved).
pub const VLAN_IDS: RangeInclusive<u64> = 1..=4094;

/// The longest interface name in bytes (`IFNAMSIZ` less the closing NUL).
pub const LONGEST_INTERFACE_NAME: usize = 15;

/// An uplink as the configuration asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The bond or NIC that must exist.
    pub master: String,
    /// What of it becomes the bridge's port.
    pub port: UplinkPort,
}

/// The three ways in which a bridge can hang on a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkPort {
    /// A VLAN sub-interface of the master: one bridge a VLAN.
    SubInterface {
        /// Interface name.
        name: String,
        /// VLAN id.
        vlan: u16,
    },
    /// The master itself, untagged.
    Master,
    /// The master itself, tagged, into a bridge that filters by VLAN: one bridge for all VLANs.
    Trunk,
}

impl Uplink {
    /// Reads `uplink`. `port_vlans` says whether pods' ports have VLANs of their own (`vlan`, `vlanTrunk`).
    pub fn parse(section: &Section<'_>, port_vlans: bool) -> Result<Uplink, CniError> {
        let master = interface_name(section, "master")?.ok_or_else(|| {
            invalid(format!(
                "{} is missing: the bond or NIC that the bridge hangs on, bond0 for one",
                section.path("master")
            ))
        })?;
        let vlan = section.number("vlan", "a VLAN id", VLAN_IDS)?.map(|vlan| vlan as u16);
        let name = interface_name(section, "name")?;
        let port = match (vlan, port_vlans) {
            (Some(_), true) => {
                return Err(invalid(format!(
                    "{} and vlan or vlanTrunk exclude each other: either the bridge has one VLAN's sub-interface, or each pod's port has its VLAN",
                    section.path("vlan")
                )));
            }
            (Some(vlan), false) => {
                let name = name.unwrap_or_else(|| format!("{master}.{vlan}"));
                check_length(&section.path("name"), &name)?;
                UplinkPort::SubInterface { name, vlan }
            }
            (None, _) if name.is_some() => {
                return Err(invalid(format!(
                    "{} names a sub-interface, and there is none without {}",
                    section.path("name"),
                    section.path("vlan")
                )));
            }
            (None, true) => UplinkPort::Trunk,
            (None, false) => UplinkPort::Master,
        };
        Ok(Uplink { master, port })
    }

    /// Name of the interface that is the bridge's port.
    pub fn port_name(&self) -> &str {
        match &self.port {
            UplinkPort::SubInterface { name, .. } => name,
            UplinkPort::Master | UplinkPort::Trunk => &self.master,
        }
    }
}

/// Reads the name of an interface, empty being absent as in Go, and refuses what the kernel would not take (dev_valid_name).
pub(crate) fn interface_name(section: &Section<'_>, key: &str) -> Result<Option<String>, CniError> {
    let Some(name) = section.str(key)?.filter(|name| !name.is_empty()) else { return Ok(None) };
    let path = section.path(key);
    check_length(&path, name)?;
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name == "." || name == ".." || name.contains(forbidden) {
        return Err(invalid(format!(
            "{path}: {name:?} is not an interface name: 1 to {LONGEST_INTERFACE_NAME} bytes without '/', ':', spaces or control characters"
        )));
    }
    Ok(Some(name.to_owned()))
}

/// Refuses a name that is too long for an interface.
pub(crate) fn check_length(path: &str, name: &str) -> Result<(), CniError> {
    if name.len() > LONGEST_INTERFACE_NAME {
        return Err(invalid(format!(
            "{path}: {name:?} has {} bytes, an interface name has at most {LONGEST_INTERFACE_NAME}",
            name.len()
        )));
    }
    Ok(())
}

fn invalid(message: String) -> CniError {
    CniError::new(code::INVALID_CONFIG, message)
}
