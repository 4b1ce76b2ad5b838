//! Interfaces, their addresses and routes as the kernel reports them, reduced to what the plans need.
//!
//! Nothing here does I/O.

use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use cni_conf::cni::result::Route;
use ipnet::IpNet;

/// What `ip -d link show` shows of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique within its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Driver and its options.
    pub kind: Kind,
    /// Ethernet address. None on interfaces without one.
    pub mac: Option<MacAddr>,
    /// The hardware's own MAC, which a member of a bond does not use. None if there is none.
    pub permanent_mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The device is up and has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Frames pass: the queues have been started after the carrier came up (`IF_OPER_UP`).
    pub oper_up: bool,
    /// Promiscuous because an operator or this plugin set it (`IFF_PROMISC`).
    pub promisc: bool,
    /// Index of the bridge or bond that this is a port of.
    pub master: Option<u32>,
    /// Index of the lower device of a VLAN sub-interface, or of the other end of a veth.
    pub parent: Option<u32>,
    /// The id of the namespace that `parent` is in, if it is another one (`IFLA_LINK_NETNSID`).
    pub parent_namespace: Option<i32>,
    /// `IFLA_IFALIAS`: the plugin stores the interface's owner there.
    pub alias: Option<String>,
    /// Whether router advertisements configure the interface. None if IPv6 is off.
    pub accept_ra: Option<i32>,
    /// The ARP requests that the node leaves unanswered there (`arp_ignore`). None if IPv4 is off.
    pub arp_ignore: Option<i32>,
    /// How strictly the node checks source addresses there (`rp_filter`). None if IPv4 is off.
    pub rp_filter: Option<i32>,
    /// Whether IPv6 is off there (`disable_ipv6`). None if the kernel has no IPv6 settings for it.
    pub disable_ipv6: Option<i32>,
    /// Options as a bridge port. None if it is no bridge port.
    pub port: Option<PortFlags>,
    /// The bridge port forwards frames (spanning tree state `forwarding`).
    pub forwarding: bool,
}

/// The driver of an interface (`IFLA_INFO_KIND`) and the options that the plans need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Linux bridge.
    Bridge(Bridge),
    /// A VLAN sub-interface.
    Vlan {
        /// VLAN id, 1 to 4094.
        id: u16,
        /// EtherType of the tag: 0x8100 for 802.1q, 0x88a8 for 802.1ad.
        protocol: u16,
    },
    /// A bond.
    Bond(Bond),
    /// One end of a veth pair.
    Veth,
    /// Any other driver by name. Empty for hardware, which has no kind.
    Other(String),
}

impl Default for Kind {
    fn default() -> Kind {
        Kind::Other(String::new())
    }
}

/// Options of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Time in 1/100 s (kernel ticks) that a new port listens and learns before it forwards.
    pub forward_delay: u32,
    /// Spanning tree is on, in the kernel or in user space.
    pub stp: bool,
    /// Frames are filtered by VLAN.
    pub vlan_filtering: bool,
    /// The VLAN that a new port joins untagged. 0 for none.
    pub default_pvid: u16,
    /// Multicast goes only to ports that asked for it.
    pub multicast_snooping: bool,
}

/// Options of a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bond {
    /// Mode by its name in the kernel's documentation, for example `802.3ad`.
    pub mode: String,
    /// `fail_over_mac` by name: `none`, `active` or `follow`.
    pub fail_over_mac: String,
}

/// Options of a bridge port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// A frame may leave by the port that it arrived at.
    pub hairpin: bool,
    /// No frames to and from other isolated ports.
    pub isolated: bool,
    /// The port accepts only frames whose source MAC is in the forwarding database for this port.
    pub locked: bool,
}

impl Link {
    /// The kind's name as `ip link` prints it. `hardware` if the driver reports none.
    pub fn kind_name(&self) -> &str {
        match &self.kind {
            Kind::Bridge(_) => "bridge",
            Kind::Vlan { .. } => "vlan",
            Kind::Bond(_) => "bond",
            Kind::Veth => "veth",
            Kind::Other(name) if name.is_empty() => "hardware",
            Kind::Other(name) => name,
        }
    }

    /// The bridge's options, if this is a bridge.
    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.kind {
            Kind::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// In 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291). Every interface that is up has an address in the
    /// latter.
    pub link_local: bool,
    /// Duplicate address detection is not finished.
    pub tentative: bool,
    /// Duplicate address detection found another holder.
    pub duplicate: bool,
    /// Not the first of its subnet (IPv4), or a temporary address of RFC 8981 (IPv6). `IFA_F_SECONDARY` means
    /// both.
    pub secondary: bool,
    /// New connections should no longer use it (RFC 4862 section 5.5.4).
    pub deprecated: bool,
    /// It has a limited lifetime: a router advertisement or DHCP set it.
    pub dynamic: bool,
}

/// One installed route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Index of the outgoing interface. None for multipath and blackhole routes.
    pub interface: Option<u32>,
    /// Destination, gateway, table and metric.
    pub route: Route,
}

/// A route to one address on the link. With host access, the node has one to each pod: `ip route show proto
/// 117`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The pod's address.
    pub address: IpAddr,
    /// Index of the outgoing interface.
    pub interface: u32,
    /// The metric, which identifies the attachment.
    pub metric: u32,
}

/// A routing rule that chooses a table by source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// The source address, or the first address of a subnet.
    pub from: IpAddr,
    /// The table that the rule selects.
    pub table: u32,
}
