//! What a review found about bonds and VLANs.

use crate::attach::attach;
use integration::{BondMode, BondedNode, Capture, DataCenter, Frame, Outcome, Pod, Snapshot};
use serde_json::{Value, json};

/// The list of [`BondedNode::list136`] as network `regression` with another bridge, uplink and VLAN of the
/// pod's port.
fn list(node: &BondedNode, bridge: &str, uplink: Value, vlan: Option<u16>) -> Value {
    let mut conf = node.conf();
    conf["bridge"] = json!(bridge);
    conf["uplink"] = uplink;
    if let Some(vlan) = vlan {
        conf["vlan"] = json!(vlan);
    }
    node.list("regression", &[conf])
}

/// Pods of `bridge` on the sub-interface of a VLAN.
fn sub_interface(node: &BondedNode, bridge: &str, vlan: u16) -> Value {
    list(node, bridge, json!({"master": "bond0", "vlan": vlan}), None)
}

/// Pods with their port in a VLAN of `br0`, above the bond.
fn trunk(node: &BondedNode, vlan: u16) -> Value {
    list(node, "br0", json!({"master": "bond0"}), Some(vlan))
}

/// An ADD that is refused as a wrong configuration, in words that name `named`, with nothing touched.
#[track_caller]
fn refused(node: &BondedNode, list: &Value, named: &[&str]) -> Outcome {
    let (before, pod) = (Snapshot::of(node), Pod::new());
    let held = node.leases("regression");
    let outcome = node.plugin(list).add(&pod.eth0());
    assert_eq!(outcome.error_code(), 7, "{outcome}");
    for name in named {
        assert!(outcome.error_text().contains(name), "{name} is not in {outcome}");
    }
    before.assert_unchanged(node);
    assert!(!pod.has_link("eth0"));
    assert_eq!(node.leases("regression"), held);
    outcome
}

/// CHECK through libcni, of a pod that [`attach`] has attached.
#[track_caller]
fn check(node: &BondedNode, list: &Value, pod: &Pod) -> Outcome {
    node.client(list).check(&pod.eth0())
}

#[test]
fn a_bridge_joins_no_two_networks() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let attached = attach(&node, &sub_interface(&node, "br136", 136));
    refused(&node, &sub_interface(&node, "br136", 137), &["br136", "bond0.136", "bond0.137"]);
    assert!(attached.pod.pings("172.20.56.1"));
    node.ip("link del br136\nlink del bond0.136");

    // A sub-interface beside a trunk, and a trunk beside a sub-interface.
    node.ip("link add br0 type bridge vlan_filtering 1 forward_delay 0\n\
             link set bond0 master br0\nlink set br0 up");
    let attached = attach(&node, &trunk(&node, 136));
    refused(&node, &sub_interface(&node, "br0", 137), &["br0", "bond0 already", "bond0.137"]);
    attached.pod.wait_for("172.20.56.1");
    node.ip("link set bond0 nomaster\n\
             link add link bond0 name bond0.137 type vlan id 137\n\
             link set bond0.137 master br0\nlink set bond0.137 up");
    refused(&node, &trunk(&node, 136), &["br0", "bond0.137 already", "bond0 as well"]);
}

/// An operator's bridge that filters by VLAN, with the bond as its port.
const OPERATORS: &str = "link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 forward_delay 0\n\
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
        let attached = attach(&node, &trunk(&node, 136));
        attached.pod.wait_for("172.20.56.1");
        refused(&node, &trunk(&node, 51), &["VLAN 51", "bond0.51"]);
        check(&node, &trunk(&node, 136), &attached.pod).expect_ok();

        node.ip("link add link bond0 name bond0.136 type vlan id 136\nlink set bond0.136 up");
        refused(&node, &trunk(&node, 136), &["VLAN 136", "bond0.136"]);
        let outcome = check(&node, &trunk(&node, 136), &attached.pod);
        assert_eq!(outcome.error_code(), 101, "{outcome}");
        assert!(outcome.error_text().contains("bond0.136"), "{outcome}");
        node.ip("link del bond0.136");
        check(&node, &trunk(&node, 136), &attached.pod).expect_ok();
        node.ip("link del br0");
    }
}

#[test]
fn with_macspoofchk_a_pod_of_a_trunk_sends_with_its_own_mac_only() {
    const FORGED: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let trunk_port = Capture::start(datacenter.router(), "trunk");
    let forged = |frame: &Frame| frame.source == FORGED && frame.vlans == [136];
    // With the check first: what is heard afterwards is the control's.
    for check in [true, false] {
        let mut list = trunk(&node, 136);
        list["plugins"][0]["macspoofchk"] = json!(check);
        list["plugins"][0]["guard"] = json!(false);
        let attached = attach(&node, &list);
        attached.pod.wait_for("172.20.56.1");
        let own = attached.pod.ip_json("link show dev eth0")[0]["address"].as_str().unwrap().to_owned();
        attached.pod.ip("link set eth0 address 02:00:00:00:00:66\nneigh flush dev eth0");
        assert_eq!(attached.pod.pings("172.20.56.1"), !check);
        assert_eq!(trunk_port.frames().iter().any(forged), !check);
        attached.pod.ip(&format!("link set eth0 address {own}\nneigh flush dev eth0"));
        attached.pod.wait_for("172.20.56.1");
    }
}

#[test]
fn what_an_operator_made_is_as_it_was_after_an_uplink_that_the_kernel_refused() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    // The kernel gives an interface that a macvlan sits on to no bridge.
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
    // Nothing but the macvlan was in the way.
    node.ip("link del other");
    let attached = attach(&node, &sub_interface(&node, "br136", 136));
    attached.pod.wait_for("172.20.56.1");
    assert_eq!(bridge()["forward_delay"], 0);
    assert_eq!(node.sysctl(&settings[0]), "0");
}

#[test]
fn an_uplink_or_a_name_that_is_in_use_otherwise_is_refused() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    // A member of the bond, itself and under a sub-interface of its own.
    for uplink in [json!({"master": "nic0"}), json!({"master": "nic0", "vlan": 136})] {
        refused(&node, &list(&node, "br0", uplink, None), &["uplink.master", "nic0", "bond0"]);
    }
    assert_eq!(node.plugin(&list(&node, "br0", json!({"master": "nic0"}), None)).status().error_code(), 50);

    // The name of the node's side of the pods' VLAN.
    node.ip(OPERATORS);
    node.ip("link add link br0 name br0.136 type vlan id 999");
    refused(&node, &trunk(&node, 136), &["br0.136", "VLAN 136"]);
    node.ip("link del br0.136\nlink add br0.136 type bridge");
    refused(&node, &trunk(&node, 136), &["br0.136", "VLAN 136"]);
    node.ip("link del br0.136");
    attach(&node, &trunk(&node, 136)).pod.wait_for("172.20.56.1");
    node.ip("link del br0");

    // A bridge that does not filter has VLAN 136 already, until the sub-interface takes it away.
    node.ip("link add vms type bridge forward_delay 0\nlink set bond0 master vms\nlink set vms up");
    refused(&node, &sub_interface(&node, "br136", 136), &["bond0", "vms"]);
}
