//! The forwarding database of a trunk's bridge, by VLAN. No frame moves a pod's entry, and no pod takes the
//! MAC of another machine.

use crate::paths::{dual_stack, vlan137};
use integration::{BondMode, BondedNode, DataCenter, Outcome, Pod, Snapshot, frame_from, set_keys};
use serde_json::json;

/// A MAC that no machine has.
const FREE: &str = "02:00:00:00:00:07";

/// The VLANs in which the trunk's bridge has a MAC, and behind which port.
fn known(node: &BondedNode, mac: &str) -> Vec<(u64, String)> {
    node.fdb("br0", mac).into_iter().filter_map(|(vlan, port)| Some((vlan?, port))).collect()
}

#[test]
fn a_frame_with_a_pods_mac_from_elsewhere_does_not_move_the_pod_on_a_trunk() {
    for keys in [json!({}), json!({"macspoofchk": true}), json!({"hostAccess": false, "guard": false})] {
        let datacenter = DataCenter::new();
        let (node, pods) = (datacenter.node(BondMode::ActiveBackup), [Pod::new(), Pod::new()]);
        let mut list = dual_stack(&node, true);
        set_keys(&mut list["plugins"][0], &keys);
        let plugin = node.plugin(&list);
        let [result, _] = pods.each_ref().map(|pod| plugin.add(&pod.eth0()).result());
        let (mac, address, port) = (pods[0].mac("eth0"), result.address(), result.host_interface());
        pods[0].wait_for("172.20.56.1");
        datacenter.router().send_frame("trunk.136", &frame_from(&mac));
        pods[1].send_frame("eth0", &frame_from(&mac));
        // The frame passed both switches before this answer.
        assert!(pods[1].pings("172.20.56.1"), "{keys}");
        assert_eq!(known(&node, &mac), [(136, port.to_owned())], "{keys}");
        // The switches keep the wrong entry until the pod sends again.
        assert!(pods[0].pings("172.20.56.1"), "{keys}");
        for from in [datacenter.router(), &*pods[1]] {
            assert!(from.pings(&address), "{keys}");
        }
        plugin.check(&pods[0].eth0(), &result).expect_ok();
        // With this, no frame of the pod moves the entry back.
        node.run(&format!("bridge fdb replace {mac} dev bond0 vlan 136 master static sticky")).expect_ok();
        let told = plugin.check(&pods[0].eth0(), &result);
        assert_eq!(told.error_code(), 101, "{keys}: {told}");
        assert!(told.error_text().contains(&format!("{mac} behind bond0, not behind {port}")), "{told}");
    }
}

#[test]
fn a_mac_that_somebody_has_on_a_trunk_is_refused_before_anything_is_touched() {
    let datacenter = DataCenter::new();
    let (node, pods, asking) =
        (datacenter.node(BondMode::ActiveBackup), [Pod::new(), Pod::new()], Pod::new());
    let plugins = [dual_stack(&node, true), vlan137(&node, true)].map(|list| node.plugin(&list));
    let asked = |mac: &str| asking.eth0().args(&format!("MAC={mac}"));
    let refused = |outcome: Outcome, mac: &str, holder: &str| {
        assert_eq!(outcome.error_code(), 105, "{mac}: {outcome}");
        assert!(
            outcome.error_text().contains(mac) && outcome.error_text().contains(holder),
            "{holder}: {outcome}"
        );
    };
    let router = datacenter.router().mac("trunk.136");
    // The router has one MAC in all VLANs.
    let gateway = "that of gateway ";
    refused(plugins[0].add(&asked(&router)), &router, gateway);
    for (plugin, pod) in plugins.iter().zip(&pods) {
        plugin.add(&pod.eth0()).expect_ok();
    }
    let holder = format!("container {}, interface eth0, network vlan136", pods[0].id());
    for (mac, holder) in [
        (node.mac("br0"), "of this node"),
        (node.mac("br0.136"), "of this node"),
        (node.mac("bond0"), "of this node"),
        (router, gateway),
        (pods[0].mac("eth0"), &*holder),
    ] {
        let before = Snapshot::of(&node);
        refused(plugins[0].add(&asked(&mac)), &mac, holder);
        before.assert_unchanged(&node);
        assert!(pods[0].pings("172.20.56.1") && pods[0].pings(&node.address(51)), "{mac}");
    }
    let added = plugins[0].add(&asked(FREE)).result();
    assert_eq!(asking.mac("eth0"), FREE);
    assert_eq!(known(&node, FREE), [(136, added.host_interface().to_owned())]);
    assert!(asking.pings("172.20.56.1"));
}
