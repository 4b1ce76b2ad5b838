//! The second topology: one bridge above the bond filters by VLAN, and each pod's port has its own VLAN.

use crate::attach::attach;
use integration::{BondMode, BondedNode, Ctl, DataCenter, Outcome, Pod, Snapshot, run_all};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The list of [`BondedNode::port_vlan_list136`] for another VLAN and its subnet.
fn list_of(node: &BondedNode, vlan: u16) -> Value {
    let mut list = node.port_vlan_list136();
    list["name"] = json!(format!("trunk{vlan}"));
    list["plugins"][0]["vlan"] = json!(vlan);
    if vlan == 137 {
        let ipam = &mut list["plugins"][0]["ipam"];
        ipam["subnet"] = json!("172.20.57.0/24");
        ipam["slice"] = json!("172.20.57.128/25");
        ipam["gateway"] = json!("172.20.57.1");
    } else {
        list["plugins"][0]["ipam"]["slice"] = json!("172.20.56.128/25");
    }
    list
}

/// VLANs of a bridge port.
fn vlans(node: &BondedNode, port: &str) -> BTreeSet<u64> {
    let shown = node.run(&format!("bridge -json vlan show dev {port}")).expect_ok();
    let Ok(Value::Array(ports)) = serde_json::from_str::<Value>(&shown.stdout) else {
        return BTreeSet::new();
    };
    ports
        .iter()
        .filter(|entry| entry["ifname"] == port)
        .flat_map(|entry| entry["vlans"].as_array().cloned().unwrap_or_default())
        .filter_map(|vlan| vlan["vlan"].as_u64())
        .collect()
}

fn bridge_of(list: &Value) -> &str {
    list["plugins"][0]["bridge"].as_str().unwrap()
}

/// With services, the bridge's own device has loose `rp_filter` and an address. An ADD that fails leaves
/// neither.
#[test]
fn a_step_that_fails_leaves_the_bridge_as_it_was() {
    let datacenter = DataCenter::new();
    let (node, pod) = (datacenter.node(BondMode::Lacp), Pod::new());
    let bridge = bridge_of(&list_of(&node, 137)).to_owned();
    attach(&node, &list_of(&node, 137));
    let mut list = list_of(&node, 136);
    list["plugins"][0]["serviceCIDRs"] = json!(["10.96.0.0/12"]);
    // An operator's interface with another name. The kernel allows one for each VLAN.
    node.ip(&format!("link add link {bridge} name other136 type vlan id 136"));
    let rp_filter = format!("net/ipv4/conf/{bridge}/rp_filter");
    let (before, filter) = (Snapshot::of(&node), node.sysctl(&rp_filter));
    let outcome = node.plugin(&list).add(&pod.eth0());
    assert!(outcome.error_text().contains(&format!("{bridge}.136")), "{outcome}");
    before.assert_unchanged(&node);
    assert_eq!(node.sysctl(&rp_filter), filter);
    node.ip("link del other136");
    node.client(&list).add(&pod.eth0()).expect_ok();
    assert_eq!(node.sysctl(&rp_filter), "2");
}

#[test]
fn the_uplink_carries_just_the_vlans_in_use() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let (list136, list137) = (list_of(&node, 136), list_of(&node, 137));
    let bridge = bridge_of(&list136).to_owned();
    let first = attach(&node, &list136);
    let second = attach(&node, &list136);
    let other = attach(&node, &list137);
    assert_eq!(vlans(&node, "bond0"), BTreeSet::from([136, 137]));
    first.pod.wait_for("172.20.56.1");
    other.pod.wait_for("172.20.57.1");
    let port = node.client(&list136).check(&first.pod.eth0());
    assert!(port.ok(), "{port}");
    let node_side = format!("{bridge}.136");
    let addresses = node.ip_json(&format!("addr show dev {node_side} scope global"));
    assert!(addresses[0]["addr_info"].as_array().is_none_or(Vec::is_empty), "{addresses}");

    node.client(&list137).del(&other.pod.eth0()).expect_ok();
    assert_eq!(vlans(&node, "bond0"), BTreeSet::from([136]));
    node.client(&list136).del(&first.pod.eth0()).expect_ok();
    assert_eq!(vlans(&node, "bond0"), BTreeSet::from([136]));
    assert!(second.pod.pings("172.20.56.1"));
    node.client(&list136).del(&second.pod.eth0()).expect_ok();
    assert_eq!(vlans(&node, "bond0"), BTreeSet::new());
    assert!(node.has_link(&node_side) && node.has_link(&bridge));
}

#[test]
fn the_last_pod_of_a_vlan_leaves_the_node_its_own() {
    // The node's own address is on br0.51. An operator made that interface before the first pod of the VLAN,
    // or gave the address to our interface.
    for made_by_operator in [true, false] {
        let datacenter = DataCenter::new();
        let node = datacenter.node(BondMode::Lacp);
        let (mut list51, list136) = (list_of(&node, 51), list_of(&node, 136));
        list51["plugins"][0]["ipam"] = json!({
            "type": "vlan-bridge-ipam", "subnet": "10.51.0.0/24", "slice": "10.51.0.128/25",
            "gateway": "10.51.0.1", "dataDir": node.data_dir(),
        });
        let other = attach(&node, &list136);
        node.ip("link del bond0.51");
        let move_the_address = || {
            node.ip("addr add 10.51.0.11/24 dev br0.51\nlink set br0.51 up\nroute add default via 10.51.0.1");
            node.wait_for("10.51.0.1");
        };
        if made_by_operator {
            node.ip("link add link br0 name br0.51 type vlan id 51");
            for member in ["bond0", "br0 self"] {
                node.run(&format!("bridge vlan add vid 51 dev {member}")).expect_ok();
            }
            move_the_address();
        }
        let pod = attach(&node, &list51);
        if !made_by_operator {
            move_the_address();
        }
        node.client(&list51).del(&pod.pod.eth0()).expect_ok();
        assert_eq!(vlans(&node, "bond0"), BTreeSet::from([51, 136]), "by the operator: {made_by_operator}");
        assert!(node.pings("10.51.0.1"), "by the operator: {made_by_operator}");
        node.client(&list136).del(&other.pod.eth0()).expect_ok();
        assert_eq!(vlans(&node, "bond0"), BTreeSet::from([51]), "by the operator: {made_by_operator}");
        // uninstall does not remove the bridge below it either.
        Ctl::new(&node).run("uninstall").expect_ok();
        assert!(node.pings("10.51.0.1"), "by the operator: {made_by_operator}");
    }
}

/// A VLAN that an operator set on the uplink stays there, although no interface of the node uses it.
#[test]
fn a_vlan_that_was_on_the_uplink_before_stays() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let (list136, list137) = (list_of(&node, 136), list_of(&node, 137));
    let first = attach(&node, &list136);
    node.run("bridge vlan add vid 137 dev bond0").expect_ok();
    let second = attach(&node, &list137);
    for (list, attached) in [(&list137, &second), (&list136, &first)] {
        node.client(list).del(&attached.pod.eth0()).expect_ok();
    }
    assert_eq!(vlans(&node, "bond0"), BTreeSet::from([137]));
}

/// An operator's bridge that filters by VLAN, with the bond as its port.
pub(crate) const OPERATORS: &str = "link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 forward_delay 0\n\
                         link set bond0 master br0\nlink set br0 up";

#[test]
fn a_vlan_of_a_trunk_that_goes_to_a_sub_interface_is_refused_and_noticed() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    for operators in [true, false] {
        if operators {
            node.ip(OPERATORS);
            node.bridge("vlan add dev bond0 vid 50-137");
        }
        let of_sub_interface = || {
            let named = "VLAN 51 of bond0 belongs to sub-interface bond0.51";
            node.assert_refuses(&list_of(&node, 51), &[named]);
        };
        of_sub_interface();
        let list = list_of(&node, 136);
        let attached = attach(&node, &list);
        attached.pod.wait_for("172.20.56.1");
        of_sub_interface();
        assert!(attached.pod.pings("172.20.56.1"));
        let check = || node.client(&list).check(&attached.pod.eth0());
        check().expect_ok();

        node.ip("link add link bond0 name bond0.136 type vlan id 136\nlink set bond0.136 up");
        node.assert_refuses(&list, &["VLAN 136", "bond0.136"]);
        let outcome = check();
        assert_eq!(outcome.error_code(), 101, "{outcome}");
        assert!(outcome.error_text().contains("bond0.136"), "{outcome}");
        node.ip("link del bond0.136");
        check().expect_ok();
        node.ip("link del br0");
    }
}

#[test]
fn pods_that_come_and_go_at_once_never_lose_their_vlan() {
    const ROUNDS: usize = 4;
    const PODS: usize = 6;
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::RoundRobin);
    let list = list_of(&node, 136);
    let client = node.client(&list);
    let pods: Vec<Pod> = (0..2 * PODS).map(|_| Pod::new()).collect();
    let (mut leaving, mut coming) = pods.split_at(PODS);
    let all =
        |verb: &str, pods: &[Pod]| pods.iter().map(|pod| client.command_for(verb, &pod.eth0())).collect();
    assert!(run_all(all("add", leaving)).iter().all(Outcome::ok));
    for _ in 0..ROUNDS {
        let mut calls: Vec<std::process::Command> = all("del", leaving);
        calls.extend(all("add", coming));
        let outcomes = run_all(calls);
        assert!(
            outcomes.iter().all(Outcome::ok),
            "{}",
            outcomes.iter().find(|outcome| !outcome.ok()).unwrap()
        );
        for pod in coming {
            assert!(pod.pings("172.20.56.1"), "{}", node.run("bridge vlan show").stdout);
        }
        (leaving, coming) = (coming, leaving);
    }
    assert!(run_all(all("del", leaving)).iter().all(Outcome::ok));
    assert_eq!(vlans(&node, "bond0"), BTreeSet::new());
}
