//! The `uplink` key: how a bridge reaches the data-centre network.

use std::ops::RangeInclusive;

use crate::cni::error::CniError;
use crate::ifname;
use crate::section::Section;

/// The VLAN ids that a tag can carry to a host (IEEE 802.1Q: 0 is "no VLAN", 4095 is reserved).
pub const VLAN_IDS: RangeInclusive<u64> = 1..=4094;

/// The uplink of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The bond or NIC. It must exist.
    pub master: String,
    /// The interface that becomes the bridge's port.
    pub port: UplinkPort,
}

/// How a bridge is attached to a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkPort {
    /// A VLAN sub-interface of the master: one bridge for each VLAN.
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
        let master = ifname::read(section, "master")?.ok_or_else(|| {
            CniError::config(format!(
                "{} is missing: the bond or NIC below the bridge, for example bond0",
                section.path("master")
            ))
        })?;
        let vlan = section.number("vlan", "a VLAN id", VLAN_IDS)?.map(|vlan| vlan as u16);
        let name = ifname::read(section, "name")?;
        let port = match (vlan, port_vlans) {
            (Some(_), true) => {
                return Err(CniError::config(format!(
                    "{} and vlan or vlanTrunk exclude each other: the VLAN is that of the whole bridge, or each pod's port has its own",
                    section.path("vlan")
                )));
            }
            (Some(vlan), false) => {
                let name = name.unwrap_or_else(|| format!("{master}.{vlan}"));
                ifname::check_length(&section.path("name"), &name)?;
                UplinkPort::SubInterface { name, vlan }
            }
            (None, _) if name.is_some() => {
                return Err(CniError::config(format!(
                    "{} has no effect without {}; leave it out",
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
