//! Addresses that another machine on the VLAN uses, as the node's side of that VLAN sees them.

use integration::{BondMode, Capture, DataCenter, Pod};
use std::collections::BTreeMap;

/// The probes reach the pods' VLAN and no other, whichever way the bridge hangs on the bond, and what answers
/// there is heard.
#[test]
fn a_rogue_on_the_vlan_keeps_its_address_in_both_topologies() {
    let datacenter = DataCenter::new();
    let nodes = datacenter.nodes([BondMode::Lacp, BondMode::ActiveBackup]);
    let mut lists = [nodes[0].list136(), nodes[1].port_vlan_list136()];
    for list in &mut lists {
        // An emulated machine may take longer to answer than a real one.
        list["plugins"][0]["ipam"]["conflictDetection"] = serde_json::json!({"intervalMs": 500});
    }
    let router = datacenter.router();
    // Who is gone answers no more, and the router forgets it while the next is looked at.
    let mut pods = Vec::new();
    for (node, list) in nodes.iter().zip(&lists) {
        let first = node.slice().split('/').next().unwrap().to_owned();
        router.ip(&format!("addr add {first}/24 dev trunk.136"));
        // Whoever answers a probe, or learns from it, is seen in here.
        let neighbours = || {
            let all = router.ip_json("neigh show dev trunk.136");
            let entry = |entry: &serde_json::Value| (entry["dst"].to_string(), entry["lladdr"].to_string());
            all.as_array().unwrap().iter().map(entry).collect::<BTreeMap<_, _>>()
        };
        let (before, trunk, pod) = (neighbours(), Capture::start(datacenter.tor_a(), "router"), Pod::new());
        let given = node.client(list).add(&pod.eth0()).result().address();
        assert_ne!(given, first);
        let probes: Vec<_> = trunk.frames().into_iter().filter(|frame| frame.arp_probe().is_some()).collect();
        let of = |addr: &str| probes.iter().filter(|frame| frame.concerns(addr)).count();
        assert_eq!((of(&first), of(&given)), (3, 3), "{} probes", probes.len());
        assert!(probes.iter().all(|frame| frame.vlans == [136]), "{probes:?}");
        let mut after = neighbours();
        after.retain(|addr, _| *addr != format!("{given:?}"));
        assert_eq!(after, before);
        pod.wait_for("172.20.56.1");
        pods.push(pod);
    }
}
