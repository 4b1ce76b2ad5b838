//! The VLAN sub-interface and the bridge: made, adopted, or refused before anything is touched.

use crate::attach::attach;
use crate::trunk::OPERATORS;
use integration::{BondMode, BondedNode, DataCenter, Pod, Snapshot, set_keys};
use serde_json::{Value, json};

/// The list of [`BondedNode::list136`] with other keys in its plugin.
fn list_with(node: &BondedNode, keys: Value) -> Value {
    let mut list = node.list136();
    set_keys(&mut list["plugins"][0], &keys);
    list
}

fn link(node: &BondedNode, name: &str) -> Value {
    node.ip_json(&format!("-details link show dev {name}"))[0].clone()
}

/// The list with its pods on the sub-interface of a VLAN.
fn sub_interface(node: &BondedNode, bridge: &str, vlan: u16) -> Value {
    list_with(node, json!({"bridge": bridge, "uplink": {"master": "bond0", "vlan": vlan}}))
}

/// The list with its pods' ports in a VLAN of `br0`, above the bond.
fn trunk(node: &BondedNode, vlan: u16) -> Value {
    list_with(node, json!({"bridge": "br0", "uplink": {"master": "bond0"}, "vlan": vlan}))
}

#[test]
fn a_first_add_makes_sub_interface_and_bridge_in_the_bonds_image() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    node.ip("link set bond0 mtu 1480");
    let attached = attach(&node, &node.list136());
    let (bond, port, bridge) = (link(&node, "bond0"), link(&node, "bond0.136"), link(&node, "br136"));
    assert_eq!(port["linkinfo"]["info_data"]["id"], 136, "{port}");
    assert_eq!((&port["link"], &port["master"]), (&json!("bond0"), &json!("br136")), "{port}");
    assert_eq!(bridge["linkinfo"]["info_data"]["forward_delay"], 0, "{bridge}");
    for made in [&port, &bridge] {
        assert_eq!((&made["mtu"], &made["address"]), (&json!(1480), &bond["address"]), "{made}");
        assert!(made["flags"].as_array().unwrap().contains(&json!("UP")), "{made}");
    }
    assert_eq!(attached.pod.ip_json("link show dev eth0")[0]["mtu"], 1480);
    for name in ["br136", "bond0.136"] {
        assert_eq!(node.sysctl(&format!("net/ipv6/conf/{name}/accept_ra")), "0", "{name}");
    }
    assert_eq!(attached.pod.sysctl("net/ipv6/conf/eth0/accept_ra"), "0");
}

#[test]
fn what_an_operator_made_is_adopted_as_it_is() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    node.ip("link add link bond0 name storage type vlan id 136\n\
             link add br136 address 02:00:00:00:13:60 mtu 1400 type bridge forward_delay 1500\n\
             addr add 192.168.99.1/24 dev br136\n\
             link set br136 alias operator");
    let list = list_with(&node, json!({"uplink": {"master": "bond0", "vlan": 136, "name": "storage"}}));
    let attached = attach(&node, &list);
    let bridge = link(&node, "br136");
    assert_eq!(bridge["address"], "02:00:00:00:13:60", "{bridge}");
    assert_eq!((&bridge["mtu"], &bridge["ifalias"]), (&json!(1400), &json!("operator")), "{bridge}");
    assert_eq!(bridge["linkinfo"]["info_data"]["forward_delay"], 0, "{bridge}");
    assert_eq!(node.ip_json("addr show dev br136")[0]["addr_info"][0]["local"], "192.168.99.1");
    assert_eq!(link(&node, "storage")["master"], "br136");
    assert!(!node.has_link("bond0.136"));
    attached.pod.wait_for("172.20.56.1");
}

#[test]
fn what_an_operator_made_is_as_it_was_after_an_uplink_that_the_kernel_refused() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    // The kernel refuses to add an interface with a macvlan to a bridge.
    node.ip("link add link bond0 name bond0.136 type vlan id 136\n\
             link add link bond0.136 name other type macvlan mode bridge\n\
             link add br136 type bridge forward_delay 1500\nlink set br136 up");
    let settings = ["bond0.136", "br136"].map(|name| format!("net/ipv6/conf/{name}/accept_ra"));
    settings.iter().for_each(|key| node.set_sysctl(key, "1"));
    let bridge = || node.ip_json("-details link show dev br136")[0]["linkinfo"]["info_data"].clone();
    let (before, pod) = (Snapshot::of(&node), Pod::new());
    let outcome = node.plugin(&sub_interface(&node, "br136", 136)).add(&pod.eth0());
    assert_eq!(outcome.error_code(), 102, "{outcome}");
    let text = outcome.error_text();
    assert!(text.contains("bond0.136") && text.contains("master br136"), "as ip says it: {outcome}");
    before.assert_unchanged(&node);
    assert_eq!(bridge()["forward_delay"], 1500);
    for key in &settings {
        assert_eq!(node.sysctl(key), "1", "{key}");
    }
    // Only the macvlan was the obstacle.
    node.ip("link del other");
    let attached = attach(&node, &sub_interface(&node, "br136", 136));
    attached.pod.wait_for("172.20.56.1");
    assert_eq!(bridge()["forward_delay"], 0);
    assert_eq!(node.sysctl(&settings[0]), "0");
}

#[test]
fn what_would_break_the_node_is_refused_and_nothing_is_touched() {
    let sub_interface = |vlan: u16| json!({"uplink": {"master": "bond0", "vlan": vlan}});
    // The commands that come first, and the interfaces that the case names.
    let cases: [(&str, &[&str], Value, &str); 9] = [
        ("", &[], json!({"uplink": {"master": "bond7", "vlan": 136}}), "there is no interface bond7"),
        (
            "link add link bond0 name bond0.136 type vlan id 137",
            &["bond0.136"],
            sub_interface(136),
            "bond0.136 already exists with VLAN 137",
        ),
        (
            "link add link bond0 name bond0.136 type vlan protocol 802.1ad id 136",
            &["bond0.136"],
            sub_interface(136),
            "protocol 0x88a8",
        ),
        (
            "link add bond0.136 type dummy",
            &["bond0.136"],
            sub_interface(136),
            "bond0.136 already exists and is not a VLAN sub-interface but dummy",
        ),
        (
            "link add link bond0 name storage type vlan id 136",
            &["storage"],
            sub_interface(136),
            "already exists as storage",
        ),
        (
            "link add br136 type dummy",
            &["br136"],
            sub_interface(136),
            "br136 already exists and is not a bridge but dummy",
        ),
        (
            "link add link bond0 name bond0.136 type vlan id 136\nlink add br7 type bridge\nlink set bond0.136 master br7",
            &["bond0.136", "br7"],
            sub_interface(136),
            "bond0.136 is a port of br7 already",
        ),
        ("", &[], sub_interface(51), "bond0.51"),
        ("", &[], json!({"mtu": 9000}), "mtu: 9000 is above the 1500 of bond0"),
    ];
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    for (prepared, interfaces, keys, expected) in cases {
        node.ip(prepared);
        node.assert_refuses(&list_with(&node, keys), &[expected]);
        assert!(node.leases("vlan136").is_empty(), "{expected}");
        interfaces.iter().for_each(|name| node.ip(&format!("link del {name}")));
    }
}

#[test]
fn an_uplink_or_a_name_that_is_in_use_otherwise_is_refused() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    // A member of the bond, itself and under a sub-interface of its own.
    for uplink in [json!({"master": "nic0"}), json!({"master": "nic0", "vlan": 136})] {
        node.assert_refuses(
            &list_with(&node, json!({"bridge": "br0", "uplink": uplink})),
            &["uplink.master", "nic0", "bond0"],
        );
    }
    let member = list_with(&node, json!({"bridge": "br0", "uplink": {"master": "nic0"}}));
    assert_eq!(node.plugin(&member).status().error_code(), 50);

    // The name of the node's interface in the pods' VLAN.
    node.ip(OPERATORS);
    node.ip("link add link br0 name br0.136 type vlan id 999");
    node.assert_refuses(&trunk(&node, 136), &["br0.136", "VLAN 136"]);
    node.ip("link del br0.136\nlink add br0.136 type bridge");
    node.assert_refuses(&trunk(&node, 136), &["br0.136", "VLAN 136"]);
    node.ip("link del br0.136");
    attach(&node, &trunk(&node, 136)).pod.wait_for("172.20.56.1");
    node.ip("link del br0");

    // A bridge that does not filter already has VLAN 136, until the sub-interface takes over the VLAN.
    node.ip("link add vms type bridge forward_delay 0\nlink set bond0 master vms\nlink set vms up");
    node.assert_refuses(&sub_interface(&node, "br136", 136), &["bond0", "vms"]);
}

#[test]
fn a_bridge_joins_no_two_networks() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let attached = attach(&node, &sub_interface(&node, "br136", 136));
    node.assert_refuses(&sub_interface(&node, "br136", 137), &["br136", "bond0.136", "bond0.137"]);
    assert!(attached.pod.pings("172.20.56.1"));
    node.ip("link del br136\nlink del bond0.136");

    // A sub-interface beside a trunk, and a trunk beside a sub-interface.
    node.ip("link add br0 type bridge vlan_filtering 1 forward_delay 0\n\
             link set bond0 master br0\nlink set br0 up");
    let attached = attach(&node, &trunk(&node, 136));
    node.assert_refuses(&sub_interface(&node, "br0", 137), &["br0", "bond0 already", "bond0.137"]);
    attached.pod.wait_for("172.20.56.1");
    node.ip("link set bond0 nomaster\n\
             link add link bond0 name bond0.137 type vlan id 137\n\
             link set bond0.137 master br0\nlink set bond0.137 up");
    node.assert_refuses(&trunk(&node, 136), &["br0", "bond0.137 already", "bond0 as well"]);
}

#[test]
fn status_tells_how_the_uplink_is() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let list = node.list136();
    let client = node.client(&list);
    client.status().expect_ok();
    let refused = |expected: &str| {
        let outcome = client.status();
        assert_eq!(outcome.error_code(), 51, "{outcome}");
        assert!(outcome.error_text().contains(expected), "{outcome}");
    };
    node.ip("link set nic0 down\nlink set nic1 down");
    integration::poll(std::time::Duration::from_secs(20), "the bond sees it", || {
        !link(&node, "bond0")["flags"].as_array().unwrap().contains(&json!("LOWER_UP"))
    });
    refused("bond bond0 has no active member");
    let pod = Pod::new();
    let added = node.plugin(&list).add(&pod.eth0()).expect_ok();
    assert!(added.stderr.contains("bond0 has no carrier"), "{added}");
    node.ip("link set bond0 down");
    refused("bond0 is down");
    node.ip("link del bond0");
    refused("there is no interface bond0");
}

#[test]
fn bonds_that_do_not_work_behind_a_bridge_are_warned_of() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    node.ip("link add bond9 type bond mode balance-alb miimon 100\nlink set bond9 up");
    let list = list_with(&node, json!({"bridge": "br9", "uplink": {"master": "bond9", "vlan": 136}}));
    let added = node.plugin(&list).add(&Pod::new().eth0()).expect_ok();
    assert!(added.stderr.contains("bond9 is in mode balance-alb"), "{added}");
}
