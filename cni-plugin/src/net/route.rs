//! `ip route`.

use std::net::IpAddr;

use cni_conf::cni::result::Route;
use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Conn, Result};
use crate::link::Installed;

/// `ip route add DST via GW dev INTERFACE …` with every attribute of specification 1.1. `onlink` is for gateways
/// that no address of the interface covers.
///
/// As with the reference plugin, a route to the same destination through another interface is no obstacle (two networks
/// of one pod may both have a default route, the later attached is preferred); the same route twice is.
pub async fn add(conn: &Conn, interface: u32, route: &Route, onlink: bool) -> Result<()> {
    let message = message(interface, route, onlink);
    let action = || match route.gw {
        Some(gw) => format!("add route {} via {gw}", route.dst),
        None => format!("add route {} on link", route.dst),
    };
    conn.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE, action).await
}

fn message(interface: u32, route: &Route, onlink: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if route.dst.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
        destination_prefix_length: route.dst.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: route.scope.map_or(default_scope(route), RouteScope::from),
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    if onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    message.attributes = vec![RouteAttribute::Oif(interface)];
    if route.dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(address(route.dst.network())));
    }
    if let Some(gw) = route.gw {
        message.attributes.push(RouteAttribute::Gateway(address(gw)));
    }
    if let Some(table) = route.table.filter(|table| *table != 0) {
        message.header.table = u8::try_from(table).unwrap_or(0);
        message.attributes.push(RouteAttribute::Table(table));
    }
    if let Some(priority) = route.priority {
        message.attributes.push(RouteAttribute::Priority(priority));
    }
    let mut metrics = Vec::new();
    metrics.extend(route.mtu.map(RouteMetric::Mtu));
    metrics.extend(route.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// As iproute2 has it: through a gateway global, else the link.
fn default_scope(route: &Route) -> RouteScope {
    if route.gw.is_some() || route.dst.addr().is_ipv6() { RouteScope::Universe } else { RouteScope::Link }
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

/// `ip route show table all` of both families. Routes that the kernel made for itself (local, broadcast, cloned) are
/// left out.
pub async fn list(conn: &Conn) -> Result<Vec<Installed>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let answers = conn.dump(RouteNetlinkMessage::GetRoute(message), || "list routes".into()).await?;
        routes.extend(answers.into_iter().flat_map(from_message));
    }
    Ok(routes)
}

/// A route through several gateways, which is what IPv6 makes of two routes to one place, is one for each.
fn from_message(answer: RouteNetlinkMessage) -> Vec<Installed> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return Vec::new() };
    if message.header.kind != RouteType::Unicast || message.header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let ipv4 = message.header.address_family == AddressFamily::Inet;
    let mut destination = if ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let (mut interface, mut gw, mut priority) = (None, None, None);
    let mut table = u32::from(message.header.table);
    let (mut mtu, mut advmss) = (None, None);
    let mut hops = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = ip.into(),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = ip.into(),
            RouteAttribute::Gateway(via) => gw = ip_of(&via),
            RouteAttribute::Oif(index) => interface = Some(index),
            RouteAttribute::Priority(metric) => priority = Some(metric),
            RouteAttribute::Table(id) => table = id,
            RouteAttribute::MultiPath(several) => hops = several,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(bytes) => mtu = Some(bytes),
                        RouteMetric::Advmss(bytes) => advmss = Some(bytes),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let Ok(dst) = IpNet::new(destination, message.header.destination_prefix_length) else {
        return Vec::new();
    };
    let installed = |interface, gw| {
        let route = Route { dst, gw, mtu, advmss, priority, table: Some(table), scope: None };
        Installed { interface, route }
    };
    if hops.is_empty() {
        return vec![installed(interface, gw)];
    }
    let of_hop = |hop: RouteNextHop| {
        let gw = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(via) => ip_of(via),
            _ => None,
        });
        installed(Some(hop.interface_index), gw)
    };
    hops.into_iter().map(of_hop).collect()
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
