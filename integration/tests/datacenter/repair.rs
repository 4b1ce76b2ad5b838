//! `vlan-bridgectl repair` on a trunk, whose ports and uplink have VLANs. The native suite has the cases
//! without VLANs.

use crate::paths::{dual_stack, vlan137};
use integration::{AddResult, BondMode, BondedNode, Ctl, DataCenter, Pod};
use serde_json::{Value, json};

/// A change of a node, and a part of the line that `repair` prints. PORT stands for the node's end of the
/// first pod's veth.
const HARMS: &[(&str, &str)] = &[
    ("ip link set PORT nomaster", "it was in no bridge, and belongs to br0"),
    ("bridge vlan del vid 136 dev PORT", "it was not in VLAN 136"),
    ("bridge vlan del vid 136 dev bond0", "bridge vlan add dev bond0 vid 136"),
    ("bridge vlan del vid 136 dev br0 self", "bridge vlan add dev br0 self vid 136"),
    ("ip link del br0.136", "ip link add link br0 name br0.136 type vlan id 136"),
    ("ip link set br0.136 down", "ip link set br0.136 up"),
    ("ip link set bond0 nomaster", "ip link set bond0 master br0"),
    ("ip link set br0 down", "ip link set br0 up"),
    ("ip link del br0", "ip link add br0"),
    ("nft flush ruleset", "is gone"),
];

fn result_of(node: &BondedNode, list: &Value, pod: &Pod) -> AddResult {
    node.plugin(list).add(&pod.eth0()).result()
}

#[test]
fn repair_puts_back_what_was_taken_away_on_a_trunk() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let ctl = Ctl::new(&node);
    ctl.run("install --cni-version 1.1.0").expect_ok();
    let mut lists = [dual_stack(&node, true), vlan137(&node, true)];
    lists[0]["plugins"][0]["serviceCIDRs"] = json!(["10.96.0.0/12"]);
    for list in &lists {
        ctl.write(
            &format!("/etc/cni/net.d/10-{}.conflist", list["name"].as_str().unwrap()),
            &list.to_string(),
        );
    }
    let pods = [Pod::new(), Pod::new()];
    let results = [0, 1].map(|index| result_of(&node, &lists[index], &pods[index]));
    let port = results[0].host_interface();
    let routers = ["172.20.56.1", "172.20.57.1"];
    routers.iter().zip(&pods).for_each(|(router, pod)| pod.wait_for(router));
    let checks =
        || [0, 1].map(|index| node.plugin(&lists[index]).check(&pods[index].eth0(), &results[index]));
    assert!(ctl.failures().is_empty(), "{:#?}", ctl.failures());
    assert_eq!(ctl.run("repair").expect_ok().stdout, "nothing to repair\n");
    for (harm, told) in HARMS {
        node.run(&harm.replace("PORT", port)).expect_ok();
        assert!(
            checks().iter().any(|outcome| !outcome.ok()) || !ctl.failures().is_empty(),
            "{harm}: CHECK and doctor notice nothing"
        );
        let repaired = ctl.run("repair");
        assert!(repaired.ok() && repaired.stdout.contains(told), "{harm}: {repaired}");
        for outcome in checks() {
            assert!(outcome.ok(), "{harm}: {outcome}");
        }
        for (router, pod) in routers.iter().zip(&pods) {
            pod.wait_for(router);
            assert!(pod.pings("10.51.0.11"), "{harm}: {repaired}");
        }
        assert!(ctl.failures().is_empty(), "{harm}: {:#?}", ctl.failures());
        assert_eq!(ctl.run("repair").expect_ok().stdout, "nothing to repair\n", "{harm}");
    }
}
