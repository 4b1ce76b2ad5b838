//! `ip link`: look at, create and change interfaces. Removing is [`super::remove`]'s.

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BondFailOverMac, BondMode, BridgePortState, BridgeStpState, InfoBond,
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVlan,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State, VlanProtocol,
};
use std::os::fd::AsRawFd;

use super::{Conn, Namespace, NetError, Result};
use crate::link::{Bond, Bridge, Kind, Link, PortFlags};

/// `ip link show dev NAME`; none if there is no such interface.
pub async fn by_name(conn: &Conn, name: &str) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get(conn, message, || format!("look up interface {name}")).await
}

/// `ip link show` by index; none if there is no such interface.
pub async fn by_index(conn: &Conn, index: u32) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    get(conn, message, || format!("look up interface {index}")).await
}

async fn get(conn: &Conn, mut message: LinkMessage, action: impl Fn() -> String) -> Result<Option<Link>> {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match conn.get(RouteNetlinkMessage::GetLink(message), &action).await {
        Ok(answers) => match answers.into_iter().find_map(new_link) {
            Some(message) => Ok(Some(from_message(message))),
            None => Err(NetError::NoAnswer { action: action() }),
        },
        Err(e) if e.not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// `ip link show`: every interface of the namespace.
pub async fn all(conn: &Conn) -> Result<Vec<Link>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answers = conn.dump(RouteNetlinkMessage::GetLink(message), || "list interfaces".into()).await?;
    Ok(answers.into_iter().filter_map(new_link).map(from_message).collect())
}

fn new_link(answer: RouteNetlinkMessage) -> Option<LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    }
}

/// Both ends of a veth pair to be made.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// Name of the end in the node's namespace.
    pub host_name: &'a str,
    /// Its Ethernet address.
    pub host_mac: MacAddr,
    /// Name of the end in the pod.
    pub pod_name: &'a str,
    /// Its Ethernet address.
    pub pod_mac: MacAddr,
    /// MTU of both ends in bytes; none for the kernel's default.
    pub mtu: Option<u32>,
    /// Index of the bridge that the node's end becomes a port of.
    pub master: u32,
}

/// `ip link add HOST address MAC master BRIDGE up type veth peer name POD address MAC netns NETNS`, in one message.
/// The pod's end stays down: the kernel answers ENOTCONN to IFF_UP there, for its peer is not registered yet.
pub async fn add_veth(conn: &Conn, veth: &Veth<'_>, netns: &Namespace) -> Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(veth.pod_name.to_owned()),
        LinkAttribute::Address(veth.pod_mac.0.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    set_up(&mut message, true);
    message.attributes = vec![
        LinkAttribute::IfName(veth.host_name.to_owned()),
        LinkAttribute::Address(veth.host_mac.0.to_vec()),
        LinkAttribute::Controller(veth.master),
    ];
    if let Some(mtu) = veth.mtu {
        peer.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    message.attributes.push(info(InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(peer))));
    create(conn, message, || format!("create veth {} with {} in the pod", veth.host_name, veth.pod_name))
        .await
}

/// A bridge to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBridge {
    /// Interface name.
    pub name: String,
    /// Ethernet address to pin; without one the bridge takes a random one of its own.
    pub mac: Option<MacAddr>,
    /// MTU in bytes; none for the kernel's default.
    pub mtu: Option<u32>,
    /// Filter frames by VLAN, with no default VLAN for new ports if `default_pvid` is 0.
    pub vlan_filtering: bool,
    /// The VLAN that new ports join untagged; the kernel's own default is 1.
    pub default_pvid: u16,
}

/// `ip link add NAME type bridge forward_delay 0 …`. It is left down.
pub async fn add_bridge(conn: &Conn, bridge: &NewBridge) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(bridge.name.clone()));
    if let Some(mac) = bridge.mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(mtu) = bridge.mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    let mut options = vec![InfoBridge::ForwardDelay(0)];
    if bridge.vlan_filtering {
        options.push(InfoBridge::VlanFiltering(true));
        options.push(InfoBridge::VlanDefaultPvid(bridge.default_pvid));
    }
    message.attributes.push(info(InfoKind::Bridge, InfoData::Bridge(options)));
    create(conn, message, || format!("create bridge {}", bridge.name)).await
}

/// `ip link add link PARENT name NAME type vlan id ID`. It is left down.
pub async fn add_vlan(conn: &Conn, name: &str, parent: u32, id: u16) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Link(parent),
        info(InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(id)])),
    ];
    create(conn, message, || format!("create VLAN sub-interface {name}")).await
}

async fn create(conn: &Conn, message: LinkMessage, action: impl FnOnce() -> String) -> Result<()> {
    conn.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, action).await
}

/// What `ip link set dev NAME …` changes in one go. What is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `up` or `down`.
    pub up: Option<bool>,
    /// `master BRIDGE` by index.
    pub master: Option<u32>,
    /// `address MAC`.
    pub mac: Option<MacAddr>,
    /// `mtu BYTES`.
    pub mtu: Option<u32>,
    /// `alias TEXT`.
    pub alias: Option<String>,
    /// `promisc on` or `off`.
    pub promisc: Option<bool>,
    /// `type bridge_slave hairpin on …`.
    pub port: Option<PortFlags>,
    /// `type bridge forward_delay N`, in 1/100 s.
    pub forward_delay: Option<u32>,
}

/// `ip link set dev …`.
pub async fn change(conn: &Conn, index: u32, change: &Change, action: impl FnOnce() -> String) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = change.up {
        set_up(&mut message, up);
    }
    if let Some(promisc) = change.promisc {
        message.header.flags.set(LinkFlags::Promisc, promisc);
        message.header.change_mask |= LinkFlags::Promisc;
    }
    if let Some(master) = change.master {
        message.attributes.push(LinkAttribute::Controller(master));
    }
    if let Some(mac) = change.mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(mtu) = change.mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(alias) = &change.alias {
        message.attributes.push(LinkAttribute::IfAlias(alias.clone()));
    }
    if let Some(delay) = change.forward_delay {
        message
            .attributes
            .push(info(InfoKind::Bridge, InfoData::Bridge(vec![InfoBridge::ForwardDelay(delay)])));
    }
    if let Some(port) = change.port {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(port.hairpin),
                InfoBridgePort::Isolated(port.isolated),
                InfoBridgePort::Locked(port.locked),
            ])),
        ]));
    }
    conn.change(RouteNetlinkMessage::NewLink(message), 0, action).await
}

fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.flags.set(LinkFlags::Up, up);
    message.header.change_mask |= LinkFlags::Up;
}

fn info(kind: InfoKind, data: InfoData) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)])
}

fn from_message(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: Kind::Other(String::new()),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        oper_up: false,
        promisc: flags.contains(LinkFlags::Promisc),
        master: None,
        parent: None,
        alias: None,
        accept_ra: None,
        port: None,
        forwarding: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = <[u8; 6]>::try_from(mac).ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.oper_up = state == State::Up,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.parent = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::AfSpecUnspec(families) => link.accept_ra = accept_ra(&families),
            LinkAttribute::LinkInfo(infos) => read_info(&mut link, infos),
            _ => {}
        }
    }
    link
}

fn accept_ra(families: &[AfSpecUnspec]) -> Option<i32> {
    families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(settings) => settings.iter().find_map(|setting| match setting {
            AfSpecInet6::DevConf(conf) => Some(conf.accept_ra),
            _ => None,
        }),
        _ => None,
    })
}

fn read_info(link: &mut Link, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = Kind::Bridge(Bridge::default()),
            LinkInfo::Kind(InfoKind::Veth) => link.kind = Kind::Veth,
            LinkInfo::Kind(kind) => link.kind = Kind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(options)) => link.kind = Kind::Bridge(read_bridge(&options)),
            LinkInfo::Data(InfoData::Vlan(options)) => link.kind = read_vlan(&options),
            LinkInfo::Data(InfoData::Bond(options)) => link.kind = Kind::Bond(read_bond(&options)),
            LinkInfo::PortData(InfoPortData::BridgePort(options)) => read_port(link, &options),
            _ => {}
        }
    }
}

fn read_bridge(options: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge::default();
    for option in options {
        match option {
            InfoBridge::ForwardDelay(ticks) => bridge.forward_delay = *ticks,
            InfoBridge::StpState(state) => bridge.stp = *state != BridgeStpState::Disabled,
            InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = *on,
            InfoBridge::VlanDefaultPvid(vid) => bridge.default_pvid = *vid,
            _ => {}
        }
    }
    bridge
}

fn read_vlan(options: &[InfoVlan]) -> Kind {
    let (mut vid, mut ethertype) = (0, 0x8100);
    for option in options {
        match option {
            InfoVlan::Id(id) => vid = *id,
            InfoVlan::Protocol(VlanProtocol::Ieee8021Q) => ethertype = 0x8100,
            InfoVlan::Protocol(VlanProtocol::Ieee8021Ad) => ethertype = 0x88a8,
            _ => {}
        }
    }
    Kind::Vlan { id: vid, protocol: ethertype }
}

fn read_bond(options: &[InfoBond]) -> Bond {
    let mut bond = Bond::default();
    for option in options {
        match option {
            InfoBond::Mode(mode) => bond.mode = bond_mode(*mode),
            InfoBond::FailOverMac(policy) => {
                bond.fail_over_mac = match policy {
                    BondFailOverMac::None => "none".into(),
                    BondFailOverMac::Active => "active".into(),
                    BondFailOverMac::Follow => "follow".into(),
                    other => u8::from(*other).to_string(),
                }
            }
            _ => {}
        }
    }
    bond
}

fn bond_mode(mode: BondMode) -> String {
    match mode {
        BondMode::BalanceRr => "balance-rr".into(),
        BondMode::ActiveBackup => "active-backup".into(),
        BondMode::BalanceXor => "balance-xor".into(),
        BondMode::Broadcast => "broadcast".into(),
        BondMode::Ieee8023Ad => "802.3ad".into(),
        BondMode::BalanceTlb => "balance-tlb".into(),
        BondMode::BalanceAlb => "balance-alb".into(),
        other => u8::from(other).to_string(),
    }
}

fn read_port(link: &mut Link, options: &[InfoBridgePort]) {
    let mut port = PortFlags::default();
    for option in options {
        match option {
            InfoBridgePort::State(state) => link.forwarding = *state == BridgePortState::Forwarding,
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Locked(on) => port.locked = *on,
            _ => {}
        }
    }
    link.port = Some(port);
}
