//! `ip neigh`: the MAC of an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::batch::{NetlinkRequest, Tolerate};
use super::route::OURS;
use super::{Conn, Result};

/// `ip neigh replace ADDRESS lladdr MAC dev INTERFACE nud permanent proto 117`: the kernel sends no ARP
/// request or neighbour solicitation for the address.
pub fn permanent(interface: u32, address: IpAddr, mac: MacAddr) -> NetlinkRequest {
    let mut message = neighbour(interface, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    // Kernels before 4.20 ignore it.
    message.attributes.push(NeighbourAttribute::Protocol(OURS));
    let action = format!("ip neigh replace {address} lladdr {mac} dev {interface} nud permanent");
    NetlinkRequest::new(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        Tolerate::Nothing,
        action,
    )
}

/// `ip neigh del ADDRESS dev INTERFACE`. A missing entry is no error.
pub fn removal(interface: u32, address: IpAddr) -> NetlinkRequest {
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(interface, address));
    NetlinkRequest::new(message, 0, Tolerate::NotFound, format!("ip neigh del {address} dev {interface}"))
}

/// `ip neigh show nud permanent proto 117`: the interface and address of every entry that this plugin added.
pub async fn all_ours(conn: &Conn) -> Result<Vec<(u32, IpAddr)>> {
    let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let ours = |message: &NeighbourMessage| {
        message.header.state == NeighbourState::Permanent
            && message.attributes.contains(&NeighbourAttribute::Protocol(OURS))
    };
    let address = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    };
    let read = |answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) if ours(&message) => {
            Some((message.header.ifindex, message.attributes.iter().find_map(address)?))
        }
        _ => None,
    };
    conn.dump(message, || "list neighbours".into(), read).await
}

/// `ip neigh get ADDRESS dev INTERFACE`: the MAC of a permanent entry. None if there is no entry, or if the
/// kernel learned it.
pub async fn permanent_mac(conn: &Conn, interface: u32, address: IpAddr) -> Result<Option<MacAddr>> {
    let message = RouteNetlinkMessage::GetNeighbour(neighbour(interface, address));
    let answer = match conn.get(message, || format!("look up neighbour {address} of {interface}")).await {
        Err(e) if e.not_found() => return Ok(None),
        other => other?,
    };
    let RouteNetlinkMessage::NewNeighbour(message) = answer else { return Ok(None) };
    if message.header.state != NeighbourState::Permanent {
        return Ok(None);
    }
    Ok(message.attributes.into_iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac).ok().map(MacAddr),
        _ => None,
    }))
}

/// The permanent entries of an interface, each with its MAC.
pub async fn permanent_macs(conn: &Conn, interface: u32) -> Result<BTreeMap<IpAddr, MacAddr>> {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(interface));
    let message = RouteNetlinkMessage::GetNeighbour(message);
    // Kernels before 4.4 list the entries of all interfaces.
    let entry = |answer: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
        let header = &message.header;
        let is_meant = header.ifindex == interface && header.state == NeighbourState::Permanent;
        if is_meant { address_and_mac(message) } else { None }
    };
    Ok(conn.dump(message, || "list neighbours".into(), entry).await?.into_iter().collect())
}

/// `ip neigh show`: the MACs of these addresses on any interface, learned or permanent.
pub async fn macs_of(conn: &Conn, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, MacAddr)>> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let pair = |answer: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
        address_and_mac(message).filter(|(address, _)| addresses.contains(address))
    };
    conn.dump(message, || "list neighbours".into(), pair).await
}

fn address_and_mac(message: NeighbourMessage) -> Option<(IpAddr, MacAddr)> {
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::from(ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::from(ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr);
            }
            _ => {}
        }
    }
    Some((address?, mac?))
}

fn neighbour(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface;
    let destination = match address {
        IpAddr::V4(address) => {
            message.header.family = AddressFamily::Inet;
            NeighbourAddress::Inet(address)
        }
        IpAddr::V6(address) => {
            message.header.family = AddressFamily::Inet6;
            NeighbourAddress::Inet6(address)
        }
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
