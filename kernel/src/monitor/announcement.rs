//! The values of announcements.

use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use cni_conf::family::Family;
use ipnet::IpNet;

/// What is announced. It says where to look, not what there is: by the time it is read, that may have changed
/// again. `gone` is true for a removal, false for something new or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A link.
    Link(LinkState),
    /// A port of a bridge: its state, its options or its VLANs.
    Port {
        /// Index of the interface, which still exists if the port is gone. The bridge announces itself too.
        index: u32,
        /// Index of the bridge.
        bridge: Option<u32>,
        /// It is no port any more.
        gone: bool,
    },
    /// An address of the node.
    Address {
        /// Index of the interface that has it.
        index: u32,
        /// The address with its prefix length.
        net: IpNet,
        /// It was removed.
        gone: bool,
    },
    /// A route. Those of routing daemons are announced only if they are default routes, and those that follow
    /// from the node's addresses (table `local`) are not.
    Route {
        /// The family of the destination.
        family: Family,
        /// Prefix length of the destination: 0 for a default route.
        prefix_length: u8,
        /// Index of the outgoing interface. None for multipath and blackhole routes.
        oif: Option<u32>,
        /// The program that set it (`RTPROT_*`).
        protocol: u8,
        /// It was removed.
        gone: bool,
    },
    /// An entry of the neighbour table.
    Neighbour {
        /// Index of the interface.
        index: u32,
        /// The neighbour's address.
        address: Option<IpAddr>,
        /// The MAC, if it is known.
        mac: Option<MacAddr>,
        /// It was removed.
        gone: bool,
    },
    /// An entry of a forwarding database.
    Fdb {
        /// Index of the interface that leads to the MAC.
        index: u32,
        /// Index of the bridge.
        master: Option<u32>,
        /// The MAC.
        mac: MacAddr,
        /// The VLAN, on a bridge that filters by VLAN.
        vlan: Option<u16>,
        /// The bridge learned it from a frame.
        learned: bool,
        /// It was removed, or has expired.
        gone: bool,
    },
    /// VLANs of a bridge or of a port.
    Vlan {
        /// Index of the bridge or of the port.
        index: u32,
        /// They were removed.
        gone: bool,
    },
    /// A routing rule.
    Rule {
        /// Its family.
        family: Family,
        /// It was removed.
        gone: bool,
    },
    /// A setting, such as forwarding.
    Netconf {
        /// Index of the interface. None for `all` and `default`.
        index: Option<u32>,
        /// The family that it is for.
        family: Family,
    },
    /// Something in a table of nf_tables.
    Nft {
        /// The table's family (`NFPROTO_*`).
        family: u8,
        /// The table's name.
        table: String,
        /// What was changed.
        object: NftObject,
        /// It was removed.
        gone: bool,
        /// The port id of the socket that changed it.
        port: u32,
    },
    /// The end of a transaction of nf_tables, after what it changed, and who made it.
    NftGeneration {
        /// The number of the rule set.
        generation: u32,
        /// The process, by its id in the reader's PID namespace.
        pid: Option<u32>,
        /// The process's name (`comm`).
        process: String,
        /// The port id of its socket.
        port: u32,
    },
    /// Announcements were lost: everything has to be looked at again.
    Lost(Subsystem),
}

/// Where announcements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// rtnetlink
    Route,
    /// nf_tables
    Netfilter,
}

/// The state of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// It was removed, or moved to another namespace.
    pub gone: bool,
    /// `IFF_UP`
    pub up: bool,
    /// `IFF_LOWER_UP`
    pub carrier: bool,
    /// Index of its bridge, bond or VRF.
    pub master: Option<u32>,
    /// Index of the interface below it, if that is in the same namespace.
    pub parent: Option<u32>,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// Largest packet.
    pub mtu: u32,
    /// The driver's name, for example `bond`. Empty for hardware.
    pub kind: String,
    /// Index of the interface that a bond sends through, in the modes that have one.
    pub active_slave: Option<u32>,
}

/// The objects of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NftObject {
    /// The table itself.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// A set or map.
    Set,
    /// An element of a set or map.
    Element,
    /// A named object, such as a counter.
    Object,
    /// A flow table.
    Flowtable,
}
