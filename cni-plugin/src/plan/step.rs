//! One change to the node, as a value: planned here, taken by [`crate::apply`], walked back by [`crate::undo`].

use cni_conf::cni::mac::MacAddr;

use super::vlan::Membership;

/// A change to an interface of the node's namespace. Interfaces go by name, for some do not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `ip link add link PARENT name NAME type vlan id ID`.
    CreateVlan {
        /// Name of the sub-interface.
        name: String,
        /// The interface below it.
        parent: String,
        /// VLAN id.
        id: u16,
    },
    /// `ip link add NAME type bridge forward_delay 0 …`.
    CreateBridge {
        /// Name of the bridge.
        name: String,
        /// MAC to pin.
        mac: Option<MacAddr>,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// Some: filter by VLAN, with this default VLAN for new ports.
        vlan_filtering: Option<u16>,
    },
    /// `ip link set NAME alias …`: says that an interface is ours which an ADD was killed over before it could say so.
    MarkAsOurs(String),
    /// `sysctl net.ipv6.conf.NAME.accept_ra=0`.
    RefuseAdvertisements(String),
    /// `ip link set PORT master BRIDGE`.
    Enslave {
        /// The interface that becomes a port.
        port: String,
        /// The bridge.
        bridge: String,
    },
    /// `ip link set NAME address MAC mtu BYTES`: a bridge that was there before its uplink keeps what it had. The kernel
    /// would give it the lowest MAC and MTU among its ports.
    Pin {
        /// The bridge.
        name: String,
        /// The MAC that it has.
        mac: Option<MacAddr>,
        /// The MTU that it has, in bytes.
        mtu: u32,
    },
    /// `ip link set NAME up`.
    Up(String),
    /// `ip link set NAME promisc on`.
    Promisc(String),
    /// `ip link set NAME type bridge forward_delay 0`.
    NoForwardDelay(String),
    /// `bridge vlan add dev PORT vid …`.
    JoinVlans {
        /// The bridge port.
        port: String,
        /// What it joins.
        vlans: Vec<Membership>,
    },
    /// `bridge vlan add dev BRIDGE vid … self`.
    JoinVlansSelf {
        /// The bridge.
        bridge: String,
        /// What it joins.
        vlans: Vec<Membership>,
    },
    /// `bridge vlan del dev PORT vid …`.
    LeaveVlans {
        /// The bridge port.
        port: String,
        /// What it leaves.
        vlans: Vec<Membership>,
    },
}
