//! Many pods at once, on a node without a bridge.

use integration::{BondMode, DataCenter, Outcome, Pod, run_all};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PODS: usize = 50;

#[test]
fn fifty_first_adds_at_once_build_one_bridge_and_fifty_dels_leave_it() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::RoundRobin);
    let mut list = node.list136();
    list["plugins"][0]["ipam"]["slice"] = json!("172.20.56.64/26");
    let client = node.client(&list);
    let pods: Vec<Pod> = (0..PODS).map(|_| Pod::new()).collect();
    let all = |verb: &str| run_all(pods.iter().map(|pod| client.command_for(verb, &pod.eth0())).collect());

    let added = all("add");
    let addresses: BTreeSet<String> = added.iter().map(|outcome| outcome.result().address()).collect();
    assert_eq!(addresses.len(), PODS);
    let kinds = |kind: &str| names(&node.ip_json(&format!("link show type {kind}")));
    assert_eq!(kinds("bridge"), ["br136"]);
    assert_eq!(kinds("vlan"), ["bond0.136", "bond0.51"]);
    assert_eq!(kinds("veth").len(), 2 + PODS, "two NICs and one port a pod");
    for pod in pods.iter().step_by(10) {
        assert!(pod.pings("172.20.56.1"));
    }

    let deleted = all("del");
    assert!(deleted.iter().all(Outcome::ok), "{}", deleted.iter().find(|outcome| !outcome.ok()).unwrap());
    assert_eq!(kinds("veth"), ["nic0", "nic1"]);
    assert_eq!(kinds("bridge"), ["br136"]);
    assert_eq!(kinds("vlan"), ["bond0.136", "bond0.51"]);
    assert!(node.leases("vlan136").is_empty());
}

/// The names of links, sorted. iproute2's answer also has empty objects.
fn names(links: &Value) -> Vec<String> {
    let links = links.as_array().unwrap();
    let mut names: Vec<String> =
        links.iter().filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}
