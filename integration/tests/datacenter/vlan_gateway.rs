//! A bridge that is the gateway of its pods' VLAN, beside and after the reference plugin. The reference makes
//! a veth on the node for the gateway.

use integration::{AddResult, Node, Plugin, Pod, set_keys};
use serde_json::{Value, json};

fn plugin<'a>(node: &'a Node, kind: &str, vlan: u16) -> Plugin<'a> {
    let ipam = if kind == "bridge" { "host-local" } else { "vlan-bridge-ipam" };
    let conf = json!({
        "type": kind, "bridge": "bridge0", "isDefaultGateway": true, "vlan": vlan,
        "ipam": {"type": ipam, "ranges": [[{"subnet": format!("10.22.{vlan}.0/24")}], [{"subnet": format!("fd00:22:{vlan}::/64")}]]},
    });
    node.plugin(&node.list(&format!("vlan{vlan}"), &[conf]))
}

fn names(result: &AddResult) -> Vec<&str> {
    // The name of the node's end of the pod's veth is the plugin's own.
    [0, 2, 3].iter().filter_map(|index| Some(&*result.interfaces.get(*index)?.name)).collect()
}

#[test]
fn the_gateway_that_the_reference_made_is_used_and_listed_as_it_lists_it() {
    let node = Node::new("node");
    let pods: Vec<Pod> = (0..4).map(|_| Pod::new()).collect();
    let (reference, ours) = (plugin(&node, "bridge", 100), plugin(&node, "vlan-bridge", 100));
    let gateways = ["10.22.100.1", "fd00:22:100::1"];
    let listed = ["bridge0", "eth0", "bridge0.100"];

    let result = reference.add(&pods[0].eth0()).result();
    assert_eq!(names(&result), listed, "{result}");
    let veth = node.ip_json("-details link show dev bridge0.100")[0]["linkinfo"]["info_kind"].clone();
    assert_eq!(veth, "veth");
    let beside = ours.add(&pods[1].eth0()).result();
    assert_eq!(names(&beside), listed, "{beside}");
    assert_eq!(beside.interfaces[3].mac, result.interfaces[3].mac, "{beside}");
    ours.check(&pods[1].eth0(), &beside).expect_ok();
    for gateway in gateways {
        pods[0].wait_for(gateway);
        pods[1].wait_for(gateway);
    }
    reference.del(&pods[0].eth0()).expect_ok();
    ours.del(&pods[1].eth0()).expect_ok();
    // A drained node has the reference's veth still.
    assert!(node.has_link("bridge0.100"));
    ours.status().expect_ok();
    ours.add(&pods[2].eth0()).expect_ok();
    gateways.iter().for_each(|gateway| pods[2].wait_for(gateway));

    // If our plugin was first, the gateway is on a sub-interface. The result lists it in the same place.
    let own = plugin(&node, "vlan-bridge", 101).add(&pods[3].eth0()).result();
    assert_eq!(names(&own), ["bridge0", "eth0", "bridge0.101"], "{own}");
    pods[3].wait_for("10.22.101.1");
}

#[test]
fn a_veth_of_that_name_that_leads_elsewhere_is_refused() {
    let (node, pod) = (Node::new("node"), Pod::new());
    node.ip("link add bridge0 type bridge vlan_filtering 1\nlink add bridge0.100 type veth peer name other");
    let outcome = plugin(&node, "vlan-bridge", 100).add(&pod.eth0());
    assert_eq!(outcome.error_code(), 7, "{outcome}");
    assert!(outcome.error_text().contains("bridge0.100 already exists"), "{outcome}");
    assert!(!pod.has_link("eth0") && node.leases("vlan100").is_empty());
}

/// The VLANs of the node's end of the pod's veth.
fn port_vlans(node: &Node) -> Value {
    let shown = node.run("bridge -json vlan show").expect_ok().stdout;
    let ports: Value = serde_json::from_str(&shown).unwrap();
    let is_pods = |port: &&Value| port["ifname"].as_str().is_some_and(|name| name.starts_with("veth"));
    ports.as_array().unwrap().iter().find(is_pods).unwrap()["vlans"].clone()
}

#[test]
fn a_port_is_in_the_vlans_that_the_reference_puts_it_in() {
    for keys in [
        json!({"vlan": 100}),
        json!({"vlan": 100, "preserveDefaultVlan": true}),
        json!({"vlan": 100, "preserveDefaultVlan": false}),
        json!({"vlanTrunk": [{"id": 42}, {"minID": 50, "maxID": 52}]}),
        json!({"vlanTrunk": [{"id": 42}], "preserveDefaultVlan": true}),
        json!({"vlan": 100, "vlanTrunk": [{"id": 42}]}),
    ] {
        let vlans = ["bridge", "vlan-bridge"].map(|kind| {
            let (node, pod) = (Node::new("node"), Pod::new());
            node.ip("link add bridge0 up type bridge vlan_filtering 1");
            let mut conf = json!({"type": kind, "bridge": "bridge0", "ipam": {}});
            set_keys(&mut conf, &keys);
            node.plugin(&node.list("layer2", &[conf])).add(&pod.eth0()).expect_ok();
            port_vlans(&node)
        });
        assert_eq!(vlans[1], vlans[0], "{keys}");
    }
}
