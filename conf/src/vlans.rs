//! The VLANs of pods' ports, and values derived from them.

use crate::cni::error::CniError;
use crate::ifname;
use crate::section::{Section, UnknownKey};
use crate::uplink::{Uplink, UplinkPort, VLAN_IDS};

/// The reference plugin's default for `bridge`.
pub(crate) const DEFAULT_BRIDGE: &str = "cni0";

/// VLANs of a pod's port on a bridge that filters (`vlan`, `vlanTrunk`, `preserveDefaultVlan`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortVlans {
    /// The port's own VLAN, untagged towards the pod.
    pub access: Option<u16>,
    /// VLANs that the pod sends and receives tagged, in ascending order.
    pub trunk: Vec<u16>,
    /// The port stays in the bridge's default VLAN too.
    pub keep_default: bool,
}

impl PortVlans {
    /// Every VLAN that the configuration gives the port.
    pub fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.access.into_iter().chain(self.trunk.iter().copied().filter(|vid| Some(*vid) != self.access))
    }
}

pub(crate) fn node_side_name(bridge: &str, vid: u16) -> String {
    format!("{bridge}.{vid}")
}

/// The interfaces through which the node reaches the pods' network. An IPAM plugin derives them from the
/// configuration.
pub(crate) struct NodeInterfaces {
    /// The bridge, or its interface in the pods' VLAN. None if pods' ports have VLANs and the node has no
    /// interface in them.
    pub(crate) interface: Option<String>,
    /// The bridge's port towards the network. None without `uplink`.
    pub(crate) uplink: Option<String>,
}

impl NodeInterfaces {
    /// Reads these interfaces from a whole configuration.
    pub(crate) fn parse(root: &Section<'_>) -> Result<NodeInterfaces, CniError> {
        let port_vlans = parse_port_vlans(root, &mut Vec::new())?;
        let uplink = match root.section("uplink")? {
            Some(keys) => Some(Uplink::parse(&keys, port_vlans.is_some())?.port_name().to_owned()),
            None => None,
        };
        let bridge = ifname::read(root, "bridge")?.unwrap_or_else(|| DEFAULT_BRIDGE.into());
        let is_gateway = root.bool("isGateway")? || root.bool("isDefaultGateway")?;
        let interface = match &port_vlans {
            Some(vlans) => vlans
                .access
                .filter(|_| uplink.is_some() || is_gateway)
                .map(|vid| node_side_name(&bridge, vid)),
            None => Some(bridge),
        };
        Ok(NodeInterfaces { interface, uplink })
    }
}

/// A bridge that filters by VLAN above a master, and the VLANs that a pod's port has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the uplink's master, which is a port of the bridge.
    pub master: String,
    /// VLANs of the pod's port.
    pub vids: Vec<u16>,
}

impl Trunk {
    pub(crate) fn of(bridge: &str, uplink: Option<&Uplink>, vlans: Option<&PortVlans>) -> Option<Trunk> {
        let uplink = uplink.filter(|uplink| uplink.port == UplinkPort::Trunk)?;
        Some(Trunk { bridge: bridge.to_owned(), master: uplink.master.clone(), vids: vlans?.ids().collect() })
    }
}

/// Reads the pods' VLANs. Unknown keys are added to `odd`.
pub(crate) fn parse_port_vlans(
    section: &Section<'_>,
    odd: &mut Vec<UnknownKey>,
) -> Result<Option<PortVlans>, CniError> {
    let access = section.uint_zero_as_none("vlan", "a VLAN id", VLAN_IDS, "none")?.map(|vid| vid as u16);
    let keep_default = section.bool("preserveDefaultVlan")?;
    let mut trunk = Vec::new();
    for entry in section.sections("vlanTrunk")? {
        let id = entry.number("id", "a VLAN id", VLAN_IDS)?;
        let (low, high) =
            (entry.number("minID", "a VLAN id", VLAN_IDS)?, entry.number("maxID", "a VLAN id", VLAN_IDS)?);
        odd.extend(entry.unknown());
        match (id, low, high) {
            (Some(id), None, None) => trunk.push(id as u16),
            (None, Some(low), Some(high)) if low <= high => trunk.extend(low as u16..=high as u16),
            (None, Some(low), Some(high)) => {
                return Err(CniError::config(format!(
                    "{}: {low} is above maxID {high}",
                    entry.path("minID")
                )));
            }
            _ => {
                return Err(CniError::config(format!(
                    "{}: either id, or minID and maxID together",
                    entry.path("id").trim_end_matches(".id")
                )));
            }
        }
    }
    trunk.sort_unstable();
    trunk.dedup();
    if access.is_none() && trunk.is_empty() {
        return Ok(None);
    }
    Ok(Some(PortVlans { access, trunk, keep_default }))
}
