//! CHECK: is an attachment still what ADD reported?

use cni_conf::cni::result::{AddResult, Interface, IpConfig, Route};
use cni_conf::network::Network;
use ipnet::IpNet;
use kernel::link::{Address, Installed, Kind, Link, SourceRule};
use kernel::port::Memberships;

use super::difference::repairable;
use super::pod;
use super::vlan::{of_port, takes_part};

/// The table of routes that name no table (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;

/// The observed state of an attachment.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The bridge.
    pub bridge: Option<Link>,
    /// The veth's node end.
    pub host: Option<Link>,
    /// The veth's pod end.
    pub container: Option<Link>,
    /// Addresses of the pod's interface.
    pub addresses: Vec<Address>,
    /// Routes of the pod's namespace.
    pub routes: Vec<Installed>,
    /// Rules of the pod's namespace that select a table by source address.
    pub rules: Vec<SourceRule>,
    /// Index of the uplink of a trunk.
    pub trunk: Option<u32>,
    /// VLANs of bridge ports. Empty if the configuration has no VLANs.
    pub vlans: Vec<Memberships>,
}

/// Compares the attachment with the result of ADD. The error describes the first difference.
pub fn compare(network: &Network, ifname: &str, previous: &AddResult, seen: &Attached) -> Result<(), String> {
    let bridge =
        seen.bridge.as_ref().ok_or_else(|| repairable(format_args!("bridge {} is gone", network.bridge)))?;
    if bridge.bridge().is_none() {
        return Err(format!("{} is not a bridge but {}", bridge.name, bridge.kind_name()));
    }
    if network.promisc && !bridge.promisc {
        return Err(format!("bridge {} is no longer promiscuous", bridge.name));
    }
    let container =
        seen.container.as_ref().ok_or_else(|| format!("interface {ifname} is gone from the container"))?;
    let host = seen.host.as_ref().ok_or_else(|| format!("the node's end of {ifname} is gone"))?;
    compare_veth(bridge, host, container)?;
    compare_limits(network, host)?;
    for reported in &previous.interfaces {
        let link = match &reported.sandbox {
            Some(_) if reported.name == ifname => container,
            None if reported.name == host.name => host,
            None if reported.name == bridge.name => bridge,
            // Other interfaces belong to other plugins.
            _ => continue,
        };
        compare_mac(reported, link)?;
    }
    if !container.up && !network.container_interface_down {
        return Err(format!("interface {ifname} is down"));
    }
    compare_vlans(network, host, seen)?;
    compare_addresses(previous, ifname, container, seen)
}

fn compare_veth(bridge: &Link, host: &Link, container: &Link) -> Result<(), String> {
    if container.kind != Kind::Veth {
        return Err(format!("interface {} is not a veth but {}", container.name, container.kind_name()));
    }
    if container.parent != Some(host.index) || host.parent != Some(container.index) {
        return Err(format!(
            "{} in the container and {} on the node are not a veth pair",
            container.name, host.name
        ));
    }
    if host.master != Some(bridge.index) {
        let why = format!("{} is not a port of bridge {}", host.name, bridge.name);
        // Repair takes no port out of another bridge.
        return Err(if host.master.is_none() { repairable(why) } else { why });
    }
    if !host.up {
        return Err(repairable(format_args!("interface {} is down", host.name)));
    }
    Ok(())
}

/// The port's restrictions must still be set. Additional permissions are the operator's decision.
fn compare_limits(network: &Network, host: &Link) -> Result<(), String> {
    let port = host.port.unwrap_or_default();
    for (key, wanted, is_set) in [
        ("macspoofchk", network.mac_spoof_check, port.locked),
        ("portIsolation", network.isolated, port.isolated),
    ] {
        if wanted && !is_set {
            let state = if key == "macspoofchk" { "locked" } else { "isolated" };
            return Err(repairable(format_args!("{key}: port {} is no longer {state}", host.name)));
        }
    }
    Ok(())
}

fn compare_mac(reported: &Interface, link: &Link) -> Result<(), String> {
    let Some(expected) = reported.mac.as_deref().filter(|mac| !mac.is_empty()) else { return Ok(()) };
    let actual = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if actual.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(format!("the MAC of {} is {actual}, it was {expected}", link.name))
    }
}

fn compare_vlans(network: &Network, host: &Link, seen: &Attached) -> Result<(), String> {
    let Some(wanted) = &network.port_vlans else { return Ok(()) };
    if let (Some(bridge), Some((_, vid)), Some(_)) = (&seen.bridge, network.node_side(), seen.trunk)
        && !takes_part(&seen.vlans, bridge.index, vid)
    {
        return Err(repairable(format_args!(
            "bridge {} itself is not in VLAN {vid}, so the node cannot reach it",
            bridge.name
        )));
    }
    for vlan in of_port(wanted) {
        if !takes_part(&seen.vlans, host.index, vlan.vid) {
            return Err(repairable(format_args!("{} is not in VLAN {}", host.name, vlan.vid)));
        }
        if seen.trunk.is_some_and(|uplink| !takes_part(&seen.vlans, uplink, vlan.vid)) {
            return Err(repairable(format_args!(
                "the uplink of bridge {} no longer carries VLAN {}",
                network.bridge, vlan.vid
            )));
        }
    }
    Ok(())
}

/// The addresses of a result that belong to this interface or name no interface.
pub fn own_addresses<'a>(previous: &'a AddResult, ifname: &str) -> impl Iterator<Item = &'a IpConfig> {
    let ours = move |index: Option<usize>| {
        index
            .and_then(|index| previous.interfaces.get(index))
            .is_none_or(|interface| interface.name == ifname)
    };
    previous.ips.iter().filter(move |ip| ours(ip.interface))
}

fn compare_addresses(
    previous: &AddResult,
    ifname: &str,
    container: &Link,
    seen: &Attached,
) -> Result<(), String> {
    for ip in own_addresses(previous, ifname) {
        if !seen.addresses.iter().any(|address| address.net == ip.address) {
            return Err(format!("{ifname} has lost its address {}", ip.address));
        }
    }
    for wanted in pod::routes(previous) {
        let is_there = |installed| is_installed(&wanted.route, installed, container, seen);
        if !seen.routes.iter().any(is_there) && !has_moved(&wanted.route, container, seen) {
            return Err(match wanted.route.gw {
                Some(gw) => format!("route {} via {gw} is gone from the container", wanted.route.dst),
                None => format!("route {} is gone from the container", wanted.route.dst),
            });
        }
    }
    Ok(())
}

/// Whether another interface of the pod has the default route now. Multus moves it to the network that the
/// pod's annotation names (`default-route`), and calls CHECK afterwards.
fn has_moved(wanted: &Route, container: &Link, seen: &Attached) -> bool {
    let is_elsewhere = |installed: &&Installed| {
        let there = &installed.route;
        same_destination(&there.dst, &wanted.dst)
            && there.table.unwrap_or(MAIN_TABLE) == MAIN_TABLE
            && installed.interface.is_some_and(|index| index != container.index)
    };
    wanted.dst.prefix_len() == 0 && seen.routes.iter().any(|installed| is_elsewhere(&installed))
}

/// True if the pod has this route.
pub fn is_routed(wanted: &Route, container: &Link, seen: &Attached) -> bool {
    seen.routes.iter().any(|installed| is_installed(wanted, installed, container, seen))
}

/// Whether the route is in its table, or in a table that a rule for one of the pod's addresses selects:
/// chained plugins use such rules to route each of a pod's networks separately.
fn is_installed(wanted: &Route, installed: &Installed, container: &Link, seen: &Attached) -> bool {
    let there = &installed.route;
    let table = there.table.unwrap_or(MAIN_TABLE);
    let of_the_pod =
        |rule: &&SourceRule| seen.addresses.iter().any(|address| address.net.addr() == rule.from);
    let in_place = table == wanted.table.filter(|table| *table != 0).unwrap_or(MAIN_TABLE)
        || seen.rules.iter().filter(of_the_pod).any(|rule| rule.table == table);
    let same = |wanted: Option<u32>, there: Option<u32>| wanted.is_none_or(|value| there == Some(value));
    in_place
        && same_destination(&there.dst, &wanted.dst)
        && there.gw == wanted.gw
        && same(wanted.priority.filter(|metric| *metric != 0), there.priority)
        && same(wanted.mtu, there.mtu)
        && same(wanted.advmss, there.advmss)
        && installed.interface.is_none_or(|index| index == container.index || wanted.gw.is_none())
}

fn same_destination(a: &IpNet, b: &IpNet) -> bool {
    a.trunc() == b.trunc()
}

#[cfg(test)]
mod tests {
    use cni_conf::cni::result::Route;
    use cni_conf::cni::version::Version;

    use super::*;
    use crate::plan::testing::{address, link, network};
    use kernel::link::Bridge;

    fn previous() -> AddResult {
        let json = r#"{"cniVersion": "1.1.0",
            "interfaces": [{"name": "br136"}, {"name": "vethX"},
                           {"name": "eth0", "mac": "02:00:00:00:00:2a", "sandbox": "/run/netns/p"}],
            "ips": [{"address": "172.20.56.16/24", "gateway": "172.20.56.1", "interface": 2}],
            "routes": [{"dst": "0.0.0.0/0"}]}"#;
        AddResult::from_json(&serde_json::from_str(json).unwrap(), Version::V1_1_0).unwrap()
    }

    fn healthy() -> Attached {
        let gateway = "172.20.56.1".parse().ok();
        Attached {
            bridge: Some(link(4, "br136", Kind::Bridge(Bridge::default()))),
            host: Some(Link { master: Some(4), parent: Some(2), ..link(7, "vethX", Kind::Veth) }),
            container: Some(Link {
                parent: Some(7),
                mac: "02:00:00:00:00:2a".parse().ok(),
                ..link(2, "eth0", Kind::Veth)
            }),
            addresses: vec![address(2, "172.20.56.16/24")],
            routes: vec![Installed {
                interface: Some(2),
                route: Route::to("0.0.0.0/0".parse().unwrap(), gateway),
            }],
            rules: Vec::new(),
            trunk: None,
            vlans: Vec::new(),
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Attached), expected: Result<(), &str>) {
        let mut seen = healthy();
        change(&mut seen);
        let compared = compare(&network(r#""bridge": "br136""#), "eth0", &previous(), &seen);
        assert_eq!(compared, expected.map_err(str::to_owned));
    }

    #[test]
    fn what_is_as_it_was_passes() {
        check(|_| {}, Ok(()));
    }

    #[test]
    fn a_route_may_be_in_a_table_that_a_rule_for_the_pods_address_leads_to() {
        let moved = |seen: &mut Attached| {
            seen.routes[0].route.table = Some(77);
            seen.rules = vec![SourceRule { from: "172.20.56.16".parse().unwrap(), table: 77 }];
        };
        check(moved, Ok(()));
    }

    #[test]
    fn a_default_route_that_another_interface_has_by_now_is_no_failure() {
        let moved = |seen: &mut Attached| {
            seen.routes[0].interface = Some(99);
            seen.routes[0].route.gw = "203.0.113.1".parse().ok();
        };
        check(moved, Ok(()));
    }

    #[test]
    fn each_thing_that_was_tampered_with_is_named() {
        check(|seen| seen.bridge = None, Err("bridge br136 is gone; vlan-bridgectl repair restores it"));
        check(|seen| seen.container = None, Err("interface eth0 is gone from the container"));
        check(|seen| seen.host = None, Err("the node's end of eth0 is gone"));
        check(|seen| seen.addresses.clear(), Err("eth0 has lost its address 172.20.56.16/24"));
        let elsewhere = |seen: &mut Attached| seen.routes[0].route.table = Some(77);
        check(elsewhere, Err("route 0.0.0.0/0 via 172.20.56.1 is gone from the container"));
        check(|seen| seen.routes.clear(), Err("route 0.0.0.0/0 via 172.20.56.1 is gone from the container"));
        let subnet = |seen: &mut Attached| {
            (seen.routes[0].interface, seen.routes[0].route.dst) = (Some(99), "10.0.0.0/8".parse().unwrap());
        };
        check(subnet, Err("route 0.0.0.0/0 via 172.20.56.1 is gone from the container"));
        let host = |change: fn(&mut Link)| move |seen: &mut Attached| seen.host.iter_mut().for_each(change);
        check(
            host(|host| host.master = None),
            Err("vethX is not a port of bridge br136; vlan-bridgectl repair restores it"),
        );
        check(host(|host| host.master = Some(99)), Err("vethX is not a port of bridge br136"));
        check(
            host(|host| host.parent = Some(9)),
            Err("eth0 in the container and vethX on the node are not a veth pair"),
        );
        check(
            host(|host| host.up = false),
            Err("interface vethX is down; vlan-bridgectl repair restores it"),
        );
        let inside =
            |change: fn(&mut Link)| move |seen: &mut Attached| seen.container.iter_mut().for_each(change);
        check(inside(|eth0| eth0.up = false), Err("interface eth0 is down"));
        check(
            inside(|eth0| eth0.mac = "02:00:00:00:00:2b".parse().ok()),
            Err("the MAC of eth0 is 02:00:00:00:00:2b, it was 02:00:00:00:00:2a"),
        );
    }
}
