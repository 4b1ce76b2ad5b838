use kernel::link::{Bond, Bridge};

use super::*;
use crate::plan::observed::Surroundings;
use crate::plan::testing::{link, network as configured};
use kernel::port::Memberships;

const BOND: u32 = 2;
const SUB_INTERFACE: u32 = 3;
const BRIDGE: u32 = 4;

fn bond() -> Link {
    let options = Bond { mode: "802.3ad".into(), fail_over_mac: "none".into() };
    link(BOND, "bond0", Kind::Bond(options))
}

fn sub_interface() -> Link {
    let vlan = Kind::Vlan { id: 136, protocol: DOT1Q };
    Link { parent: Some(BOND), master: Some(BRIDGE), ..link(SUB_INTERFACE, "bond0.136", vlan) }
}

fn bridge() -> Link {
    link(BRIDGE, "br136", Kind::Bridge(Bridge::default()))
}

fn complete() -> BridgeAndUplink {
    BridgeAndUplink {
        bridge: Some(bridge()),
        master: Some(bond()),
        sub_interface: Some(sub_interface()),
        surroundings: Some(Surroundings {
            links: vec![bond(), sub_interface(), bridge()],
            ..Surroundings::default()
        }),
        ..BridgeAndUplink::default()
    }
}

fn bare() -> BridgeAndUplink {
    let surroundings = Some(Surroundings { links: vec![bond()], ..Surroundings::default() });
    BridgeAndUplink { master: Some(bond()), surroundings, ..BridgeAndUplink::default() }
}

fn network() -> Network {
    configured(r#""bridge": "br136", "uplink": {"master": "bond0", "vlan": 136}"#)
}

fn trunk() -> Network {
    configured(r#""bridge": "br0", "uplink": {"master": "bond0"}, "vlan": 136"#)
}

#[track_caller]
fn refused(network: &Network, seen: &BridgeAndUplink, expected: &str) {
    let message = plan(network, seen).expect_err("was not refused").msg;
    assert!(message.contains(expected), "{message}");
}

#[track_caller]
fn steps(network: &Network, seen: &BridgeAndUplink) -> Vec<Step> {
    plan(network, seen).expect("was refused").steps
}

#[test]
fn nothing_is_changed_where_nothing_is_missing() {
    assert_eq!(plan(&network(), &complete()).unwrap(), Plan::default());
}

#[test]
fn a_bare_node_gets_sub_interface_and_bridge_with_the_uplinks_mac_and_mtu() {
    let mac = "02:00:00:00:00:2a".parse().ok();
    let mut seen = bare();
    seen.master = Some(Link { mac, ..bond() });
    let (port, name) = ("bond0.136".to_owned(), "br136".to_owned());
    let expected = vec![
        Step::CreateVlan { name: port.clone(), parent: "bond0".into(), id: 136 },
        Step::Sysctl(Sysctl::accept_ra_off(&port)),
        Step::CreateBridge {
            name: name.clone(),
            mac,
            mtu: Some(9000),
            vlan_filtering: None,
            multicast_snooping: true,
        },
        Step::Sysctl(Sysctl::accept_ra_off(&name)),
        Step::Enslave { port: port.clone(), bridge: name.clone() },
        Step::Up(port),
        Step::Up(name),
    ];
    assert_eq!(steps(&network(), &seen), expected);
}

#[test]
fn an_operators_bridge_only_gets_what_is_missing() {
    let mut seen = complete();
    let slow = Bridge { forward_delay: 1500, ..Bridge::default() };
    seen.bridge = Some(Link { mtu: 1500, up: false, ..link(BRIDGE, "br136", Kind::Bridge(slow)) });
    assert_eq!(steps(&network(), &seen), [Step::ClearForwardDelay("br136".into()), Step::Up("br136".into())]);
}

#[test]
fn an_address_from_a_router_advertisement_stays_on_an_operators_bridge() {
    let mut seen = complete();
    seen.bridge = Some(Link { accept_ra: Some(1), ..bridge() });
    assert_eq!(steps(&network(), &seen), [Step::Sysctl(Sysctl::accept_ra_off("br136"))]);
    seen.bridge_has_dynamic_address = true;
    let plan = plan(&network(), &seen).unwrap();
    assert_eq!((plan.steps.len(), plan.warnings.len()), (0, 1));
}

#[test]
fn a_sub_interface_below_a_master_that_is_down_is_left_for_the_kernel_to_bring_up() {
    let mut seen = complete();
    seen.master = Some(Link { up: false, carrier: false, ..bond() });
    seen.sub_interface = Some(Link { up: false, ..sub_interface() });
    let plan = plan(&network(), &seen).unwrap();
    assert_eq!(plan.steps, []);
    assert!(plan.warnings[0].contains("bond0 is down"), "{:?}", plan.warnings);
}

#[test]
fn bonds_that_break_behind_a_bridge_are_warned_of() {
    let mut seen = complete();
    let options = Bond { mode: "balance-alb".into(), fail_over_mac: "active".into() };
    seen.master = Some(Link { kind: Kind::Bond(options), ..bond() });
    let warnings = plan(&network(), &seen).unwrap().warnings;
    assert!(
        warnings[0].contains("balance-alb") && warnings[1].contains("fail_over_mac active"),
        "{warnings:?}"
    );
}

#[test]
fn what_would_break_the_node_is_refused() {
    let missing = BridgeAndUplink { master: None, ..bare() };
    refused(&network(), &missing, "there is no interface bond0");

    let mut other = complete();
    other.bridge = Some(link(BRIDGE, "br136", Kind::Other("macvlan".into())));
    refused(&network(), &other, "br136 already exists and is not a bridge but macvlan");

    let mut other = complete();
    other.sub_interface = Some(Link { kind: Kind::Vlan { id: 137, protocol: DOT1Q }, ..sub_interface() });
    refused(&network(), &other, "bond0.136 already exists with VLAN 137");

    let mut other = complete();
    other.sub_interface = Some(Link { kind: Kind::Vlan { id: 136, protocol: 0x88a8 }, ..sub_interface() });
    refused(&network(), &other, "protocol 0x88a8");

    let mut other = complete();
    other.sub_interface = Some(Link { parent: Some(9), ..sub_interface() });
    refused(&network(), &other, "on interface 9");

    let mut other = complete();
    other.sub_interface = Some(Link { master: Some(9), ..sub_interface() });
    refused(&network(), &other, "bond0.136 is a port of interface 9 already");

    let mut other = complete();
    other.sub_interface = Some(Link { master: None, ..sub_interface() });
    other.surroundings.as_mut().unwrap().port_addresses = vec!["10.0.0.5/24".into()];
    refused(&network(), &other, "bond0.136 carries 10.0.0.5/24");

    other.surroundings.as_mut().unwrap().port_has_default_route = true;
    refused(&network(), &other, "default route of this node leaves by bond0.136");

    refused(&Network { mtu: Some(9001), ..network() }, &bare(), "mtu: 9001 is above the 9000 of bond0");
}

#[test]
fn a_vlan_reaches_a_sub_interface_or_a_bridge_never_both() {
    let mut seen = bare();
    seen.sub_interfaces.push(Link { name: "storage".into(), master: None, ..sub_interface() });
    refused(&network(), &seen, "VLAN 136 of bond0 already exists as storage");
    refused(&trunk(), &seen, "belongs to sub-interface storage");
}

#[test]
fn a_trunk_needs_a_bridge_that_filters_and_joins_none_of_its_default_vlans() {
    let mut seen = bare();
    seen.bridge = Some(link(BRIDGE, "br0", Kind::Bridge(Bridge::default())));
    refused(&trunk(), &seen, "does not filter by VLAN");
    let options = Bridge { vlan_filtering: true, default_pvid: 1, ..Bridge::default() };
    seen.bridge = Some(link(BRIDGE, "br0", Kind::Bridge(options)));
    assert_eq!(
        steps(&trunk(), &seen),
        [
            Step::Enslave { port: "bond0".into(), bridge: "br0".into() },
            Step::Pin { name: "br0".into(), mac: bond().mac, mtu: Some(9000) },
            Step::LeaveVlans { member: VlanMember::Port("bond0".into()), vlans: vec![Membership::access(1)] },
        ]
    );
}

#[test]
fn a_bridge_has_one_way_out() {
    let other = Kind::Vlan { id: 137, protocol: DOT1Q };
    let mut seen = bare();
    seen.bridge = Some(bridge());
    let around = seen.surroundings.as_mut().unwrap();
    around.links.push(Link { master: Some(BRIDGE), ..link(9, "bond0.137", other) });
    refused(&network(), &seen, "br136 has the uplink bond0.137 already");

    let around = seen.surroundings.as_mut().unwrap();
    around.links[1] = Link { master: Some(BRIDGE), ..link(9, "tap0", Kind::Other("tun".into())) };
    assert!(plan(&network(), &seen).is_ok(), "a virtual machine on an operator's bridge");
    seen.bridge.as_mut().unwrap().alias = Some(crate::ownership::NODE_ALIAS.into());
    refused(&network(), &seen, "br136 has the uplink tap0 already");
}

#[test]
fn a_master_that_is_part_of_something_else_is_refused() {
    let mut seen = bare();
    seen.upper = Some(link(9, "bond1", Kind::Bond(Bond::default())));
    refused(&network(), &seen, "bond0 is a member of bond bond1");
    seen.upper = Some(link(9, "br7", Kind::Bridge(Bridge::default())));
    refused(&network(), &seen, "would take VLAN 136 away from it");
    let filtering = Bridge { vlan_filtering: true, ..Bridge::default() };
    seen.upper = Some(link(9, "br7", Kind::Bridge(filtering)));
    assert!(plan(&network(), &seen).is_ok(), "the bridge does not use the VLAN");
    seen.vlans = vec![Memberships { port: BOND, bridge: Some(9), vlans: vec![Membership::tagged(136)] }];
    refused(&network(), &seen, "carries VLAN 136 into bridge br7 already");
}

#[test]
fn the_nodes_side_of_a_vlan_is_that_or_nothing() {
    let options = Bridge { vlan_filtering: true, ..Bridge::default() };
    let side = |id: u16, parent: u32| Link {
        parent: Some(parent),
        ..link(9, "br0.136", Kind::Vlan { id, protocol: DOT1Q })
    };
    let mut seen = bare();
    seen.bridge = Some(link(BRIDGE, "br0", Kind::Bridge(options)));
    seen.node_side = Some(side(136, BRIDGE));
    assert!(plan(&trunk(), &seen).is_ok());
    for wrong in [side(999, BRIDGE), side(136, BOND)] {
        seen.node_side = Some(wrong);
        refused(&trunk(), &seen, "br0.136 already exists and is not VLAN 136 of bridge br0");
    }
}

#[test]
fn a_pod_without_a_vlan_needs_a_default_one() {
    let options = Bridge { vlan_filtering: true, ..Bridge::default() };
    let mut seen = bare();
    seen.bridge = Some(link(BRIDGE, "br0", Kind::Bridge(options)));
    refused(&configured(r#""bridge": "br0", "uplink": {"master": "bond0"}"#), &seen, "has no default VLAN");
}
