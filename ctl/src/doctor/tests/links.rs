//! Bonds, bridges, ports, MTUs, addresses, routes and the kernel's settings.

use kernel::link::{self, Kind};

use super::super::{bridges, kernel as kernel_checks, ports, routing, uplink};
use super::{address, at, default_route, pod, told, web};
use crate::bond::BondState;
use crate::facts::{Facts, MissingRoute};
use vlan_bridge::host_access::Missing;
use vlan_bridge::ports::AttachmentId;

fn with_bond(change: impl FnOnce(&mut BondState)) -> impl FnOnce(&mut Facts) {
    move |facts| {
        let mut there = BondState::healthy();
        change(&mut there);
        facts.bonds.insert("bond0".into(), there);
    }
}

#[test]
fn uplinks() {
    let check = |change: fn(&mut Facts), words: &[&str]| told(uplink::masters, change, "fail", words);
    check(|facts| facts.links.retain(|link| link.name != "bond0"), &["no interface bond0", "create bond0"]);
    check(|facts| at(facts, "bond0").up = false, &["bond0 is down", "fix: ip link set bond0 up"]);
    check(|facts| at(facts, "bond0").carrier = false, &["bond0 has no carrier", "cables"]);
    let cut = with_bond(|bond| bond.members.iter_mut().for_each(|member| member.up = false));
    told(uplink::masters, cut, "fail", &["bond0 has no member that is up", "findings of member"]);
}

#[test]
fn a_bond_without_members_cuts_all_pods_off_and_one_member_is_no_redundancy() {
    let add = "fix: ip link set NIC down; ip link set NIC master bond0";
    told(
        uplink::bonds,
        with_bond(|bond| bond.members.clear()),
        "fail",
        &["bond0 has no member", "no pod reaches its network", add],
    );
    let one = with_bond(|bond| bond.members.truncate(1));
    told(uplink::bonds, one, "warn", &["bond0 has 1 member", "no redundancy", add]);
}

#[test]
fn bridges_and_their_uplink_ports() {
    let fail = |change: fn(&mut Facts), words: &[&str]| told(bridges::all, change, "fail", words);
    const REPAIR: &str = "fix: vlan-bridgectl repair";
    fail(
        |facts| facts.links.retain(|link| link.name != "br136"),
        &["br136 of network v is missing, and 1 pod attached", REPAIR],
    );
    fail(|facts| at(facts, "br136").kind = Kind::Veth, &["br136 is a veth", "set another bridge"]);
    fail(|facts| at(facts, "br136").up = false, &["br136 is down", REPAIR, "ip link set br136 up"]);
    fail(
        |facts| facts.links.retain(|link| link.name != "bond0.136"),
        &["bond0.136, the uplink port of br136, is missing", REPAIR],
    );
    fail(
        |facts| at(facts, "bond0.136").master = None,
        &["bond0.136 is not a port of br136", REPAIR, "ip link set bond0.136 master br136 up"],
    );
    fail(|facts| at(facts, "bond0.136").up = false, &["bond0.136 is down", REPAIR]);
    fail(|facts| at(facts, "bond0.136").carrier = false, &["bond0.136 has no carrier", "cables"]);
    fail(
        |facts| at(facts, "bond0.136").forwarding = false,
        &["bond0.136 is a port of br136 and not forwarding", "bridge link set dev bond0.136 state 3"],
    );
    let stp = |facts: &mut Facts| {
        let options = link::Bridge { stp: true, forward_delay: 1500, ..link::Bridge::default() };
        at(facts, "br136").kind = Kind::Bridge(options);
    };
    told(bridges::all, stp, "warn", &["br136 runs spanning tree", "for 30 s", "type bridge stp_state 0"]);
}

#[test]
fn pods_without_their_bridge() {
    let veth = web();
    told(
        ports::ports,
        |facts| at(facts, &veth).master = None,
        "fail",
        &["1 pod is in no bridge: web eth0 of v", &veth, "fix: vlan-bridgectl repair"],
    );
    told(
        ports::ports,
        |facts| at(facts, &veth).up = false,
        "fail",
        &["1 pod is down on the node: web eth0 of v", "fix: vlan-bridgectl repair"],
    );
    told(
        ports::ports,
        |facts| at(facts, &veth).master = Some(7),
        "warn",
        &["1 pod is in another bridge", &format!("ip link set {veth} master BRIDGE")],
    );
    let gone = |facts: &mut Facts| {
        let id = |text: &str| text.to_owned();
        facts.without_veth =
            vec![AttachmentId { network: id("dhcp"), container_id: id("db"), ifname: id("net1") }];
    };
    told(
        ports::ports,
        gone,
        "fail",
        &["1 pod without an interface here: db net1 of dhcp", "delete the pods"],
    );
    let many = |facts: &mut Facts| {
        for index in 0..7 {
            let mut lost = pod(100 + index, "v", &format!("pod{index}"), 6);
            lost.master = None;
            facts.links.push(lost);
        }
    };
    told(ports::ports, many, "fail", &["7 pods are in no bridge: pod0 eth0 of v", ", …"]);
}

#[test]
fn an_mtu_below_a_larger_one() {
    let smaller = |name: &'static str| move |facts: &mut Facts| at(facts, name).mtu = 1400;
    let words = ["br136 has MTU 1500, bond0.136 below it has 1400", "ip link set bond0.136 mtu 1500"];
    let found = super::complaints(uplink::mtu, smaller("bond0.136"));
    assert_eq!(found.len(), 2, "the pod's frames and the node's: {found:#?}");
    assert!(words.iter().all(|word| found[1].contains(word)), "{found:#?}");
    told(uplink::mtu, smaller("nic1"), "fail", &["bond0 has MTU 1500, nic1 below it has 1400", "hang"]);
    let large = |facts: &mut Facts| at(facts, &web()).mtu = 9000;
    told(uplink::mtu, large, "fail", &["has MTU 9000, bond0.136 below it has 1500"]);
}

#[test]
fn addresses_and_routes_where_none_should_be() {
    told(
        uplink::misplaced_addresses,
        |facts| facts.addresses.push(address(6, "172.20.56.9/24")),
        "warn",
        &["br136 has the address 172.20.56.9/24", "fix: ip addr del 172.20.56.9/24 dev br136"],
    );
    told(
        uplink::misplaced_addresses,
        |facts| facts.routes.push(default_route(5)),
        "fail",
        &["a default route uses bond0.136", "fix: ip route del default dev bond0.136"],
    );
    // The master of a sub-interface has the node's own address.
    let own = |facts: &mut Facts| facts.addresses.push(address(4, "10.53.0.10/24"));
    assert_eq!(super::complaints(uplink::misplaced_addresses, own), [""; 0]);
}

#[test]
fn an_address_that_pods_of_other_nodes_cannot_reach() {
    let second = |facts: &mut Facts| facts.addresses.push(address(4, "10.53.0.10/24"));
    told(
        routing::reverse_path,
        second,
        "fail",
        &[
            "10.53.0.10 on bond0: the default route is on another interface",
            "ip route add default via 10.53.0.1 dev bond0 table 1004",
            "ip rule add from 10.53.0.10 lookup 1004",
        ],
    );
    let loose = |facts: &mut Facts| {
        second(facts);
        facts.sysctls.0.insert("ipv4/conf/bond0/rp_filter".into(), 2);
    };
    assert_eq!(super::complaints(routing::reverse_path, loose), [""; 0]);
    let with_rule = |facts: &mut Facts| {
        second(facts);
        let from = "10.53.0.10".parse().unwrap();
        facts.rules.push(link::SourceRule { from, table: 7 });
        let mut route = default_route(4);
        route.route.table = Some(7);
        facts.routes.push(route);
    };
    assert_eq!(super::complaints(routing::reverse_path, with_rule), [""; 0]);
}

#[test]
fn a_lost_route_to_a_pod() {
    let lost = |is_route, mac: Option<&'static str>| {
        move |facts: &mut Facts| {
            let (address, source) = ("172.20.56.16".parse().unwrap(), "10.52.0.10".parse().unwrap());
            facts.missing_routes = vec![MissingRoute {
                veth: web(),
                device: "br136".into(),
                metric: 99,
                mac: mac.map(|mac| mac.parse().unwrap()),
                missing: Missing { address, source, is_route },
            }];
        }
    };
    told(
        routing::host_access,
        lost(true, None),
        "fail",
        &[
            "the node's route to 172.20.56.16 by br136 is missing",
            "vlan-bridgectl repair",
            "fix: ip route replace 172.20.56.16 dev br136 src 10.52.0.10 metric 99 proto 117",
        ],
    );
    let entry = "fix: ip neigh replace 172.20.56.16 lladdr 02:00:00:00:00:2a dev br136 nud permanent";
    let mac = Some("02:00:00:00:00:2a");
    told(routing::host_access, lost(false, mac), "fail", &["neighbour entry for 172.20.56.16", entry]);
    told(routing::host_access, lost(false, None), "fail", &["fix: restart the pod"]);
}

#[test]
fn settings_of_the_kernel() {
    let set = |key: &'static str, value| {
        move |facts: &mut Facts| {
            facts.sysctls.0.insert(key.into(), value);
        }
    };
    told(
        kernel_checks::settings,
        set("ipv4/ip_forward", 0),
        "fail",
        &["net.ipv4.ip_forward is 0, and cni0 is a gateway", "fix: sysctl -w net.ipv4.ip_forward=1"],
    );
    assert_eq!(super::complaints(kernel_checks::settings, set("ipv6/conf/all/forwarding", 0)), [""; 0]);
    told(
        kernel_checks::settings,
        set("ipv4/conf/br136/log_martians", 1),
        "warn",
        &["net.ipv4.conf.br136.log_martians is on", "sysctl -w net.ipv4.conf.br136.log_martians=0"],
    );
    let accepts = |facts: &mut Facts| at(facts, "bond0.136").accept_ra = Some(1);
    told(
        kernel_checks::router_advertisements,
        accepts,
        "fail",
        &["bond0.136 accepts router advertisements", "sysctl -w net.ipv6.conf.bond0/136.accept_ra=0"],
    );
    let late = |facts: &mut Facts| facts.modules.at_boot.clear();
    told(
        kernel_checks::modules,
        late,
        "warn",
        &["in no file of modules-load.d", "bridge\\nveth\\nbonding\\n8021q"],
    );
}
