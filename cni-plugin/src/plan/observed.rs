//! Input of the plans: the observed state of the bridge and its uplink.

use cni_conf::cni::mac::MacAddr;
use kernel::link::Link;
use kernel::port::Memberships;

/// EtherType of an 802.1q tag.
pub const DOT1Q: u16 = 0x8100;

/// The observed interfaces that the configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeAndUplink {
    /// The interface with the bridge's name.
    pub bridge: Option<Link>,
    /// The interface with the master's name.
    pub master: Option<Link>,
    /// The interface with the sub-interface's name.
    pub sub_interface: Option<Link>,
    /// The master is missing, and the caller is in a user namespace of its own, so this is not the node's
    /// network.
    pub rootless: bool,
    /// The bridge or bond of which the master is a port.
    pub upper: Option<Link>,
    /// The interface with the name of the node's own side of the pods' VLAN.
    pub node_side: Option<Link>,
    /// Its other end if it is a veth: the reference plugin makes a veth pair where this plugin makes a
    /// sub-interface of the bridge.
    pub node_side_peer: Option<Link>,
    /// VLANs of all bridge ports, if the uplink is a trunk or its master is a port itself.
    pub vlans: Vec<Memberships>,
    /// All VLAN sub-interfaces of the node, if the uplink is a trunk or something is to be changed.
    pub sub_interfaces: Vec<Link>,
    /// The bridge accepts router advertisements and has an address from one.
    pub bridge_has_dynamic_address: bool,
    /// The kernel may still change the bridge's MAC as ports come and go.
    pub bridge_mac_may_change: bool,
    /// State that is expensive to observe and is needed only before a change.
    pub surroundings: Option<Surroundings>,
}

/// The rest of the node's network, observed only before a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The MAC of a bridge that is gone, which its pods have in their neighbour entries.
    pub known_mac: Option<MacAddr>,
    /// Every interface.
    pub links: Vec<Link>,
    /// Addresses of the interface that is to become a port, link-local ones left out.
    pub port_addresses: Vec<String>,
    /// A default route leaves by the interface that is to become a port.
    pub port_has_default_route: bool,
}
