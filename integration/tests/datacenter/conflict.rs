//! Addresses that another machine on the VLAN uses, as the node sees them on its interface in that VLAN.

use integration::{BondMode, Capture, DataCenter, Pod};
use std::collections::BTreeMap;

/// The probes reach only the pods' VLAN, in each topology of bridge and bond, and the node hears the answers.
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
    // A detached pod no longer answers. The router's entry expires while the next case runs.
    let mut pods = Vec::new();
    for (node, list) in nodes.iter().zip(&lists) {
        let first = node.slice().split('/').next().unwrap().to_owned();
        router.ip(&format!("addr add {first}/24 dev trunk.136"));
        // This capture has every machine that answers a probe, or learns from it.
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
