//! The part of a configuration that the removal of an attachment needs.

use crate::cni::error::CniError;
use crate::ifname;
use crate::ipam_plugin::IpamPlugin;
use crate::request::Request;
use crate::section::Section;
use crate::uplink::Uplink;
use crate::vlans::{DEFAULT_BRIDGE, Trunk, node_side_name, parse_port_vlans};

use super::declares_ports;

/// The part of a configuration that DEL and GC need. No mistake in it makes them fail: an attachment must be
/// removable even if its configuration has been broken since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Teardown {
    /// The bridge.
    pub bridge: String,
    /// The node's own device on the pods' network.
    pub device: String,
    /// There is an uplink, even an invalid one, so the node may have routes to pods.
    pub has_uplink: bool,
    /// Pods may be guarded.
    pub has_guard: bool,
    /// The trunk uplink, if it is one.
    pub trunk: Option<Trunk>,
    /// The IPAM plugin.
    pub ipam: Option<IpamPlugin>,
    /// An attachment may have rules in the node's packet filter, as far as this configuration tells.
    pub has_nat: bool,
}

impl Teardown {
    /// Reads what is valid. The second value lists what is not.
    pub fn parse(request: &Request) -> (Teardown, Vec<String>) {
        let section = Section::new(&request.config, "");
        let mut warnings = Vec::new();
        let mut lenient = |error: CniError| warnings.push(error.msg);
        let bridge = ifname::read(&section, "bridge").unwrap_or_else(|e| {
            lenient(e);
            None
        });
        // ADD warned of unknown keys already.
        let port_vlans = parse_port_vlans(&section, &mut Vec::new()).unwrap_or_else(|e| {
            lenient(e);
            None
        });
        let uplink = section.section("uplink").and_then(|keys| match keys {
            Some(keys) => Uplink::parse(&keys, port_vlans.is_some()).map(Some),
            None => Ok(None),
        });
        let uplink = uplink.unwrap_or_else(|e| {
            lenient(e);
            None
        });
        let ipam = IpamPlugin::parse(&section).unwrap_or_else(|e| {
            lenient(e);
            None
        });
        let has_nat = section.bool("ipMasq").unwrap_or(true)
            || declares_ports(&section).unwrap_or(true)
            || section.value("serviceCIDRs").is_some();
        let bridge = bridge.unwrap_or_else(|| DEFAULT_BRIDGE.into());
        let trunk = Trunk::of(&bridge, uplink.as_ref(), port_vlans.as_ref());
        let has_uplink = section.value("uplink").is_some();
        let access = port_vlans.as_ref().and_then(|vlans| vlans.access).filter(|_| has_uplink);
        let device = access.map_or_else(|| bridge.clone(), |vid| node_side_name(&bridge, vid));
        let has_guard = section.opt_bool("guard").unwrap_or(None).unwrap_or(has_uplink);
        (Teardown { bridge, device, has_uplink, has_guard, trunk, ipam, has_nat }, warnings)
    }
}
