//! The VLAN sub-interface and the bridge: made, adopted, or refused before anything is touched.

use crate::attach::attach;
use integration::{BondMode, BondedNode, DataCenter, Pod, Snapshot};
use serde_json::{Value, json};

/// The list of [`BondedNode::list136`] with other keys in its plugin.
fn list_with(node: &BondedNode, keys: Value) -> Value {
    let mut list = node.list136();
    for (key, value) in keys.as_object().unwrap() {
        list["plugins"][0][key] = value.clone();
    }
    list
}

fn link(node: &BondedNode, name: &str) -> Value {
    node.ip_json(&format!("-details link show dev {name}"))[0].clone()
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
fn what_would_break_the_node_is_refused_and_nothing_is_touched() {
    let sub_interface = |vlan: u16| json!({"uplink": {"master": "bond0", "vlan": vlan}});
    // What is there before, and the interfaces in it.
    let cases: [(&str, &[&str], Value, &str); 9] = [
        ("", &[], json!({"uplink": {"master": "bond7", "vlan": 136}}), "there is no interface bond7"),
        (
            "link add link bond0 name bond0.136 type vlan id 137",
            &["bond0.136"],
            sub_interface(136),
            "bond0.136 is there already with VLAN 137",
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
            "no VLAN sub-interface but dummy",
        ),
        (
            "link add link bond0 name storage type vlan id 136",
            &["storage"],
            sub_interface(136),
            "is there already as storage",
        ),
        (
            "link add br136 type dummy",
            &["br136"],
            sub_interface(136),
            "br136 is there already and is no bridge but dummy",
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
        let list = list_with(&node, keys);
        let pod = Pod::new();
        let (before, before_in_pod) = (Snapshot::of(&node), Snapshot::of(&pod));
        let refused = node.client(&list).add(&pod.eth0());
        assert_eq!(refused.error_code(), 7, "{expected}: {refused}");
        assert!(refused.error_text().contains(expected), "{expected}: {refused}");
        before.assert_unchanged(&node);
        before_in_pod.assert_unchanged(&pod);
        assert!(node.leases("vlan136").is_empty(), "{expected}");
        interfaces.iter().for_each(|name| node.ip(&format!("link del {name}")));
    }
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
