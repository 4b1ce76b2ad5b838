//! `ip link`: shows, creates and changes interfaces. [`super::remove`] removes them.

mod decode;
mod model;

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{Conn, Namespace, NetError, Result};
use decode::from_message;
pub use model::*;

/// `ip link show dev NAME`. None if there is no such interface.
pub async fn by_name(conn: &Conn, name: &str) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get(conn, message, || format!("look up interface {name}")).await
}

/// `ip link show` by index. None if there is no such interface.
pub async fn by_index(conn: &Conn, index: u32) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    get(conn, message, || format!("look up interface {index}")).await
}

async fn get(conn: &Conn, mut message: LinkMessage, action: impl Fn() -> String) -> Result<Option<Link>> {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    match conn.get(RouteNetlinkMessage::GetLink(message), &action).await {
        Ok(answer) => match new_link(answer) {
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
    let read = |answer| new_link(answer).map(from_message);
    conn.dump(RouteNetlinkMessage::GetLink(message), || "list interfaces".into(), read).await
}

/// `ip link show type vlan`: every VLAN sub-interface of the namespace.
pub async fn vlans(conn: &Conn) -> Result<Vec<Link>> {
    // Every namespace has this folder once the driver is loaded.
    let has_driver = Path::new("/proc/thread-self/net/vlan").exists();
    if has_driver { of_kind(conn, InfoKind::Vlan).await } else { Ok(Vec::new()) }
}

/// `ip link show type dummy`: every dummy interface of the namespace.
pub async fn dummies(conn: &Conn) -> Result<Vec<Link>> {
    // A built-in driver also has a folder there, because it has a parameter.
    let has_no_driver = Path::new("/sys/module").exists() && !Path::new("/sys/module/dummy").exists();
    if has_no_driver { Ok(Vec::new()) } else { of_kind(conn, InfoKind::Dummy).await }
}

/// The kernel filters the list by kind. Without a driver of that kind, it lists all interfaces.
async fn of_kind(conn: &Conn, kind: InfoKind) -> Result<Vec<Link>> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind.clone())]),
    ];
    let action = || format!("list interfaces of type {kind:?}");
    let is_of_kind = |message: &LinkMessage| {
        message.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(kind.clone())),
            _ => false,
        })
    };
    let read = |answer| new_link(answer).filter(is_of_kind).map(from_message);
    conn.dump(RouteNetlinkMessage::GetLink(message), action, read).await
}

/// Whether a bridge keeps its MAC when ports come and go (`NET_ADDR_SET`, linux/netdevice.h). A MAC that the
/// kernel chose changes to the lowest MAC of its ports. Only sysfs has this fact, not netlink. None if the
/// mounted sysfs does not show the bridge's namespace.
pub fn mac_is_pinned(bridge: &Link) -> Option<bool> {
    const SET: &str = "3";
    if !is_in_sysfs(bridge) {
        return None;
    }
    Some(in_sysfs(bridge, "addr_assign_type")?.trim() == SET)
}

/// Whether the mounted sysfs shows this interface, and not another one of the same name. A sysfs shows the
/// interfaces of one namespace.
pub fn is_in_sysfs(link: &Link) -> bool {
    in_sysfs(link, "ifindex").is_some_and(|index| index.trim() == link.index.to_string())
}

fn in_sysfs(link: &Link, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/sys/class/net/{}/{file}", link.name)).ok()
}

fn new_link(answer: RouteNetlinkMessage) -> Option<LinkMessage> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message),
        _ => None,
    }
}

/// A veth pair to create.
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
    /// MTU of both ends in bytes. None for the kernel's default.
    pub mtu: Option<u32>,
    /// Index of the bridge that gets the node's end as a port.
    pub master: u32,
}

/// The queues of each end. By default the kernel creates one queue for each CPU, uses one and removes the
/// others again. Each removal waits for an RCU grace period.
const QUEUES: u32 = 1;

/// `ip link add HOST address MAC master BRIDGE type veth peer name POD address MAC netns NETNS`, in one
/// message. Both ends stay down. The kernel answers ENOTCONN to IFF_UP of the pod's end, because its peer is
/// not registered yet.
pub async fn add_veth(conn: &Conn, veth: &Veth<'_>, netns: &Namespace) -> Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(veth.pod_name.to_owned()),
        LinkAttribute::Address(veth.pod_mac.0.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(veth.host_name.to_owned()),
        LinkAttribute::Address(veth.host_mac.0.to_vec()),
        LinkAttribute::Controller(veth.master),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
    ];
    if let Some(mtu) = veth.mtu {
        peer.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    message.attributes.push(info(InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(peer))));
    create(conn, message, || format!("create veth {} with {} in the pod", veth.host_name, veth.pod_name))
        .await
}

/// A bridge to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBridge {
    /// Interface name.
    pub name: String,
    /// Ethernet address to pin. Without one, the bridge picks a random address.
    pub mac: Option<MacAddr>,
    /// MTU in bytes. None for the kernel's default.
    pub mtu: Option<u32>,
    /// Filter frames by VLAN. If `default_pvid` is 0, new ports get no default VLAN.
    pub vlan_filtering: bool,
    /// The VLAN that new ports join untagged. The kernel's default is 1.
    pub default_pvid: u16,
    /// Forward multicast only to ports that asked for it, which is the kernel's default.
    pub multicast_snooping: bool,
}

/// `ip link add NAME type bridge forward_delay 0 …`. The bridge stays down.
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
    if !bridge.multicast_snooping {
        options.push(InfoBridge::MulticastSnooping(false));
    }
    message.attributes.push(info(InfoKind::Bridge, InfoData::Bridge(options)));
    create(conn, message, || format!("create bridge {}", bridge.name)).await
}

/// `ip link add link PARENT name NAME type vlan id ID`. The sub-interface stays down.
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

/// Changes that `ip link set dev NAME …` makes in one request. A value of none stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `up` or `down`.
    pub up: Option<bool>,
    /// `master BRIDGE` by index; 0 for `nomaster`.
    pub master: Option<u32>,
    /// `address MAC`.
    pub mac: Option<MacAddr>,
    /// `mtu BYTES`.
    pub mtu: Option<u32>,
    /// `alias TEXT`.
    pub alias: Option<String>,
    /// `promisc on` or `off`.
    pub promisc: Option<bool>,
    /// `addrgenmode none`: the kernel adds no IPv6 link-local address. It has no effect on an interface that
    /// has a carrier already.
    pub no_link_local: bool,
    /// `type bridge_slave hairpin on …`.
    pub port: Option<PortFlags>,
    /// `type bridge forward_delay N`, in 1/100 s.
    pub forward_delay: Option<u32>,
    /// `type bridge mcast_snooping 0` or `1`.
    pub multicast_snooping: Option<bool>,
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
    if change.no_link_local {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    }
    let delay = change.forward_delay.map(InfoBridge::ForwardDelay);
    let snooping = change.multicast_snooping.map(InfoBridge::MulticastSnooping);
    let options: Vec<InfoBridge> = delay.into_iter().chain(snooping).collect();
    if !options.is_empty() {
        message.attributes.push(info(InfoKind::Bridge, InfoData::Bridge(options)));
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
