//! `ip neigh` and `bridge fdb`: who is behind an address, and who behind a bridge port.

use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::batch::{Fine, Request};
use super::route::OURS;
use super::{Conn, Result};

/// `bridge fdb add MAC dev PORT master static`: this address is behind this port and nowhere else, in each VLAN that
/// the port is in by now. With the port locked, it is the only one that may send there.
pub async fn pin(conn: &Conn, port: u32, mac: MacAddr) -> Result<()> {
    let message = behind_port(port, mac);
    let action = || format!("pin {mac} to bridge port {port}");
    conn.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL, action).await
}

/// The same, for where it may have been pinned already.
pub fn pinned(port: u32, mac: MacAddr) -> Request {
    let message = RouteNetlinkMessage::NewNeighbour(behind_port(port, mac));
    let action = format!("pin {mac} to bridge port {port}");
    Request::new(message, NLM_F_CREATE | NLM_F_REPLACE, Fine::Never, action)
}

fn behind_port(port: u32, mac: MacAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// `ip neigh replace ADDRESS lladdr MAC dev INTERFACE nud permanent proto 117`: nobody is asked who has the address.
pub fn permanent(interface: u32, address: IpAddr, mac: MacAddr) -> Request {
    let mut message = neighbour(interface, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    // Kernels before 4.20 pass over it.
    message.attributes.push(NeighbourAttribute::Protocol(OURS));
    let action = format!("ip neigh replace {address} lladdr {mac} dev {interface} nud permanent");
    Request::new(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        Fine::Never,
        action,
    )
}

/// `ip neigh del ADDRESS dev INTERFACE`; one that is gone is fine.
pub fn removal(interface: u32, address: IpAddr) -> Request {
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(interface, address));
    Request::new(message, 0, Fine::IfGone, format!("ip neigh del {address} dev {interface}"))
}

/// `ip neigh show nud permanent proto 117`: the addresses of every entry of ours, each with its interface.
pub async fn all_ours(conn: &Conn) -> Result<Vec<(u32, IpAddr)>> {
    let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = conn.dump(message, || "list neighbours".into()).await?;
    let ours = |message: &NeighbourMessage| {
        message.header.state == NeighbourState::Permanent
            && message.attributes.contains(&NeighbourAttribute::Protocol(OURS))
    };
    let address = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    };
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) if ours(message) => {
                Some((message.header.ifindex, message.attributes.iter().find_map(address)?))
            }
            _ => None,
        })
        .collect())
}

/// `ip neigh get ADDRESS dev INTERFACE`: the MAC that is set for good; none if there is none or it was learned.
pub async fn permanent_mac(conn: &Conn, interface: u32, address: IpAddr) -> Result<Option<MacAddr>> {
    let message = RouteNetlinkMessage::GetNeighbour(neighbour(interface, address));
    let answers = match conn.get(message, || format!("look up neighbour {address} of {interface}")).await {
        Err(e) if e.not_found() => return Ok(None),
        other => other?,
    };
    Ok(answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
        if message.header.state != NeighbourState::Permanent {
            return None;
        }
        message.attributes.into_iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac).ok().map(MacAddr),
            _ => None,
        })
    }))
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
