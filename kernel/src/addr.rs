//! `ip address`.

use std::net::IpAddr;

use cni_conf::family::Family;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Conn, Result};
use crate::link::Address;

/// `ip address add NET dev INTERFACE`, for IPv6 with `nodad` unless `detect_duplicates`.
pub async fn add(conn: &Conn, interface: u32, net: IpNet, detect_duplicates: bool) -> Result<()> {
    let mut message = message(interface, net);
    if let IpNet::V4(v4) = net {
        if v4.prefix_len() < 31 {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
    } else if !detect_duplicates {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    let action = || format!("add address {net} to interface {interface}");
    conn.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, action).await
}

/// `ip address add NET dev INTERFACE scope host`: the node does not use it as a source of packets that leave
/// the node. False if the address exists already.
pub async fn add_host_scope(conn: &Conn, interface: u32, net: IpNet) -> Result<bool> {
    let mut message = message(interface, net);
    message.header.scope = AddressScope::Host;
    let action = || format!("add address {net} to interface {interface}");
    match conn.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, action).await {
        Err(e) if e.exists() => Ok(false),
        other => other.map(|()| true),
    }
}

/// `ip address del NET dev INTERFACE`.
pub async fn del(conn: &Conn, interface: u32, net: IpNet) -> Result<()> {
    let action = || format!("remove address {net} from interface {interface}");
    conn.change(RouteNetlinkMessage::DelAddress(message(interface, net)), 0, action).await
}

fn message(interface: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = net.prefix_len();
    message.header.index = interface;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

/// `ip address show` of one family.
pub async fn of_family(conn: &Conn, family: Family) -> Result<Vec<Address>> {
    let mut message = AddressMessage::default();
    message.header.family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let action = || "list the node's addresses".into();
    conn.dump(RouteNetlinkMessage::GetAddress(message), action, from_message).await
}

/// `ip address show dev INTERFACE`. Empty if the interface has vanished. Kernels before 4.20 send the
/// addresses of all interfaces.
pub async fn list(conn: &Conn, interface: u32) -> Result<Vec<Address>> {
    match of_interface(conn, interface) {
        Ok(mut addresses) => {
            addresses.retain(|address| address.interface == interface);
            Ok(addresses)
        }
        Err(e) if e.not_found() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// `ip address show`
pub async fn all(conn: &Conn) -> Result<Vec<Address>> {
    all_at_once(conn)
}

/// The same for callers outside a runtime.
pub fn all_at_once(conn: &Conn) -> Result<Vec<Address>> {
    of_interface(conn, 0)
}

fn of_interface(conn: &Conn, index: u32) -> Result<Vec<Address>> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    conn.dump_at_once(RouteNetlinkMessage::GetAddress(message), || "list addresses".into(), from_message)
}

fn from_message(answer: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let (mut local, mut address, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let ip: IpAddr = local.or(address)?;
    Some(Address {
        interface: message.header.index,
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        link_local: match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        },
        tentative: flags.contains(AddressFlags::Tentative),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        secondary: flags.contains(AddressFlags::Secondary),
        deprecated: flags.contains(AddressFlags::Deprecated),
        dynamic: !flags.contains(AddressFlags::Permanent),
    })
}
