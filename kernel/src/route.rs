//! `ip route`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use cni_conf::cni::result::Route;
use cni_conf::family::Family;
use ipnet::{IpNet, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::batch::{NetlinkRequest, Tolerate};
use super::{Conn, Result};
use crate::link::{HostRoute, Installed};

/// The protocol of the plugin's routes, as `ip route` shows it: `proto 117`. iproute2's rt_protos does not
/// assign this number.
pub(super) const OURS: RouteProtocol = RouteProtocol::Other(117);

/// `RT_TABLE_LOCAL` of linux/rtnetlink.h.
const LOCAL_TABLE: u8 = 255;

/// RFC 4291 section 2.7.
const MULTICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// `ip route add DST via GW dev INTERFACE …` with every attribute of specification 1.1. `onlink` is for
/// gateways outside the subnets of the interface.
///
/// As with the reference plugin, an equal destination through another interface is no error. Two networks of
/// one pod may both have a default route, and the kernel prefers the one attached later. The same route twice
/// is an error.
pub async fn add(conn: &Conn, interface: u32, route: &Route, onlink: bool) -> Result<()> {
    let message = message(interface, route, onlink);
    let action = || match route.gw {
        Some(gw) => format!("add route {} via {gw}", route.dst),
        None => format!("add route {} on link", route.dst),
    };
    conn.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE, action).await
}

/// `ip route add ADDRESS dev INTERFACE metric INTERFACE proto 117`, in a pod: the address is on the link,
/// whatever route the gateway has. The metric is the interface's index, so the kernel prefers the route of
/// the network that was attached first.
pub fn on_link(interface: u32, address: IpAddr) -> NetlinkRequest {
    let mut message = message(interface, &Route::to(address.into(), None), false);
    message.header.protocol = OURS;
    message.attributes.push(RouteAttribute::Priority(interface));
    let action = format!("ip route add {address} dev {interface} in the container");
    NetlinkRequest::new(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
        Tolerate::AlreadyExists,
        action,
    )
}

/// `ip route add NET via NODE dev INTERFACE onlink metric INTERFACE proto 117`, in a pod: for destinations
/// that the node reaches and the gateway may not.
pub fn through_node(interface: u32, net: IpNet, node: IpAddr) -> NetlinkRequest {
    by_node(interface, net, node, NLM_F_EXCL)
}

/// The same with `ip route replace`, after the node has got another address.
pub fn through_node_instead(interface: u32, net: IpNet, node: IpAddr) -> NetlinkRequest {
    by_node(interface, net, node, NLM_F_REPLACE)
}

fn by_node(interface: u32, net: IpNet, node: IpAddr, flag: u16) -> NetlinkRequest {
    let mut message = message(interface, &Route::to(net, Some(node)), true);
    message.header.protocol = OURS;
    message.attributes.push(RouteAttribute::Priority(interface));
    let action = format!("ip route add {net} via {node} dev {interface} onlink in the container");
    NetlinkRequest::new(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | flag,
        Tolerate::AlreadyExists,
        action,
    )
}

/// `ip route replace ADDRESS dev INTERFACE src SOURCE metric METRIC proto 117`, on the node.
pub fn to_pod(route: &HostRoute, source: IpAddr) -> NetlinkRequest {
    let HostRoute { address: pod, interface, metric } = *route;
    let mut message = message(interface, &Route::to(pod.into(), None), false);
    message.header.protocol = OURS;
    message.attributes.push(RouteAttribute::PrefSource(address(source)));
    message.attributes.push(RouteAttribute::Priority(metric));
    let action = format!("ip route replace {pod} dev {interface} src {source} metric {metric}");
    NetlinkRequest::new(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        Tolerate::Nothing,
        action,
    )
}

/// `ip route del ADDRESS proto 117`, for any attachment. A missing route is no error.
pub fn removal_of_any(pod: IpAddr) -> NetlinkRequest {
    removal_by(pod, Vec::new())
}

/// `ip route del ADDRESS dev INTERFACE metric METRIC proto 117`. A missing route is no error.
pub fn removal(route: &HostRoute) -> NetlinkRequest {
    let by = vec![RouteAttribute::Oif(route.interface), RouteAttribute::Priority(route.metric)];
    removal_by(route.address, by)
}

/// `ip -6 route del multicast ff00::/8 dev INTERFACE table local`: deletes the route that every interface
/// gets with IPv6. The kernel walks these routes one by one whenever an interface comes or goes. A bridge
/// port does not need one, because the node itself sends nothing from it. A missing route is no error, and
/// neither is a kernel without IPv6.
pub async fn delete_multicast_route(conn: &Conn, interface: u32) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = MULTICAST.prefix_len();
    message.header.table = LOCAL_TABLE;
    message.header.kind = RouteType::Multicast;
    message.attributes =
        vec![RouteAttribute::Destination(address(MULTICAST.addr().into())), RouteAttribute::Oif(interface)];
    let action = || format!("ip -6 route del multicast {MULTICAST} dev {interface} table local");
    match conn.change(RouteNetlinkMessage::DelRoute(message), 0, action).await {
        Err(e) if e.not_found() || e.unsupported() => Ok(()),
        other => other,
    }
}

fn removal_by(pod: IpAddr, mut by: Vec<RouteAttribute>) -> NetlinkRequest {
    let mut message = lookup_of(pod);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = OURS;
    message.header.scope = RouteScope::NoWhere;
    message.attributes.append(&mut by);
    NetlinkRequest::new(
        RouteNetlinkMessage::DelRoute(message),
        0,
        Tolerate::NotFound,
        format!("ip route del {pod} proto 117"),
    )
}

/// `ip route get ADDRESS`: the interface and source address that the node would use. None if no route leads
/// there.
pub async fn lookup(conn: &Conn, to: IpAddr) -> Result<Option<(u32, IpAddr)>> {
    let Some(message) = get(conn, lookup_of(to)).await? else { return Ok(None) };
    let (mut interface, mut source) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::PrefSource(ip) => source = ip_of(ip),
            _ => {}
        }
    }
    Ok(interface.zip(source))
}

/// `ip route get fibmatch ADDRESS`: the plugin's route to the address, if the node uses one.
pub async fn ours_to(conn: &Conn, pod: IpAddr) -> Result<Option<HostRoute>> {
    let mut message = lookup_of(pod);
    message.header.flags = RouteFlags::FibMatch;
    Ok(get(conn, message).await?.as_ref().and_then(ours))
}

/// Index of the interface of the default route: the preferred one of the main table. None if there is no
/// default route.
pub async fn default_interface(conn: &Conn, family: Family) -> Result<Option<u32>> {
    let is_default = |route: &Route| {
        route.dst.prefix_len() == 0
            && Family::of_net(&route.dst) == family
            && route.table == Some(u32::from(RouteHeader::RT_TABLE_MAIN))
    };
    let defaults = list(conn).await?.into_iter().filter(|there| is_default(&there.route));
    Ok(defaults.min_by_key(|there| there.route.priority).and_then(|there| there.interface))
}

/// `ip route show proto 117`: every route of the plugin to a pod.
pub async fn all_ours(conn: &Conn) -> Result<Vec<HostRoute>> {
    list_ours(conn, None).await
}

/// `ip route show proto 117 dev INTERFACE`: the plugin's routes by one interface.
pub async fn ours_by(conn: &Conn, interface: u32) -> Result<Vec<HostRoute>> {
    list_ours(conn, Some(interface)).await
}

/// The kernel filters the list. Before Linux 4.20 it lists all routes.
async fn list_ours(conn: &Conn, interface: Option<u32>) -> Result<Vec<HostRoute>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = OURS;
        message.attributes.extend(interface.map(RouteAttribute::Oif));
        let read = |answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => ours(&message),
            _ => None,
        };
        let message = RouteNetlinkMessage::GetRoute(message);
        routes.extend(conn.dump(message, || "list routes".into(), read).await?);
    }
    routes.retain(|route| interface.is_none_or(|interface| route.interface == interface));
    Ok(routes)
}

/// `ip -6 route show proto ra`: the indexes of interfaces that receive router advertisements.
pub async fn advertised(conn: &Conn) -> Result<BTreeSet<u32>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    let interface = |answer| match answer {
        RouteNetlinkMessage::NewRoute(message) if message.header.protocol == RouteProtocol::Ra => {
            message.attributes.into_iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(index),
                _ => None,
            })
        }
        _ => None,
    };
    let message = RouteNetlinkMessage::GetRoute(message);
    Ok(conn.dump(message, || "list routes".into(), interface).await?.into_iter().collect())
}

fn ours(message: &RouteMessage) -> Option<HostRoute> {
    let (mut to, mut interface, mut metric) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => to = ip_of(ip),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = Some(*priority),
            _ => {}
        }
    }
    let whole = to.is_some_and(|ip| IpNet::from(ip).prefix_len() == message.header.destination_prefix_length);
    if message.header.protocol != OURS || !whole {
        return None;
    }
    Some(HostRoute { address: to?, interface: interface?, metric: metric? })
}

fn lookup_of(to: IpAddr) -> RouteMessage {
    let whole = IpNet::from(to);
    let mut message = RouteMessage::default();
    message.header.address_family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = whole.prefix_len();
    message.attributes = vec![RouteAttribute::Destination(address(to))];
    message
}

/// None if no route leads there.
async fn get(conn: &Conn, message: RouteMessage) -> Result<Option<RouteMessage>> {
    match conn.get(RouteNetlinkMessage::GetRoute(message), || "look up a route".into()).await {
        Ok(RouteNetlinkMessage::NewRoute(message)) => Ok(Some(message)),
        Ok(_) => Ok(None),
        Err(e) if e.unreachable() => Ok(None),
        Err(e) => Err(e),
    }
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

/// As in iproute2: global through a gateway, otherwise link.
fn default_scope(route: &Route) -> RouteScope {
    if route.gw.is_some() || route.dst.addr().is_ipv6() { RouteScope::Universe } else { RouteScope::Link }
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

/// `ip route show table all` of both families, without the kernel's own routes (local, broadcast, cloned).
pub async fn list(conn: &Conn) -> Result<Vec<Installed>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let read = |answer| Some(from_message(answer));
        let message = RouteNetlinkMessage::GetRoute(message);
        routes.extend(conn.dump(message, || "list routes".into(), read).await?.into_iter().flatten());
    }
    Ok(routes)
}

/// A route through several gateways yields one route for each. IPv6 merges two routes to one destination into
/// such a route.
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
