//! What a node without a slice of its own gets, and what is said of a pool that cannot be used.

use integration::{Agent, PoolSite, poll};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn nodes_without_slices_share_a_pool() {
    let site = PoolSite::new(2);
    let list = |node| site.list(node, &json!({"slice": null, "pool": {"wait": 20}}));
    let lists = [list(0), list(1)];
    let ctls: Vec<_> = (0..2).map(|node| site.ctl(node, &lists[node])).collect();
    site.create(&ctls[0], "172.20.56.0/24");
    // Without an agent nothing is granted.
    let (_pod, refused) = site.add(0, &lists[0]);
    assert_eq!(refused.error_code(), 11, "{refused}");
    let text = refused.error_text();
    assert!(text.contains("agent"), "{text}");

    let agents: Vec<_> = (0..2).map(|node| site.agent(&ctls[node], node)).collect();
    let mut addresses = BTreeSet::new();
    let mut pods = Vec::new();
    for node in [0, 1, 0, 1, 0, 1] {
        let (pod, address) = site.pod(node, &lists[node]);
        assert!(addresses.insert(address.clone()), "{address} is given twice");
        pods.push((node, pod));
    }
    // A restarted agent goes on with what it has.
    let before = site.granted(0, "leased");
    drop(agents);
    let _agents: Vec<_> = (0..2).map(|node| site.agent(&ctls[node], node)).collect();
    for (node, pod) in &pods {
        site.del(*node, &lists[*node], pod);
    }
    let (_pod, again) = site.pod(0, &lists[0]);
    assert!(!again.is_empty());
    assert_eq!(site.granted(0, "leased"), before);
}

/// The agent says so, and doctor, and a pod gets an address of the node's slice all the same.
fn says(change: impl FnOnce(&mut Value), words: &[&str], given: &str) {
    let site = PoolSite::new(1);
    let mut list = site.list(0, &json!({"pool": {"wait": 1}}));
    let ctl = site.ctl(0, &list);
    site.create(&ctl, "172.20.56.16-172.20.56.63");
    change(&mut list["plugins"][0]["ipam"]);
    let ctl = site.ctl(0, &list);
    let agent = Agent::begin(&ctl, "--node node0");
    agent.await_report(words[0]);
    poll(SOON, "a finding", || {
        let findings = ctl.doctor("--no-probe");
        findings.iter().any(|finding| finding.check == "pools" && finding.verdict == "fail")
    });
    let findings = ctl.doctor("--no-probe");
    let finding = findings.iter().find(|finding| finding.check == "pools").unwrap();
    for word in words {
        assert!(finding.seen.contains(word), "no {word:?} in {finding:?}");
    }
    let status = ctl.run("status");
    assert!(status.stdout.contains("POOL "), "{status}");
    let (_pod, address) = site.pod(0, &list);
    assert_eq!(address, given);
}

#[test]
fn an_unknown_pool_is_named() {
    says(
        |ipam| ipam["pool"]["name"] = json!("vlan137"),
        &["there is no such pool", "vlan137"],
        "172.20.56.16",
    );
}

#[test]
fn a_slice_outside_the_pool_is_named() {
    says(
        |ipam| ipam["slice"] = json!("172.20.57.0/28"),
        &["of the node's slice is not an address of the pool", "vlan136"],
        "172.20.57.0",
    );
}

#[test]
fn an_unreachable_store_is_named() {
    says(
        |ipam| ipam["pool"]["etcd"]["endpoints"] = json!(["https://10.79.0.99:2379"]),
        &["10.79.0.99:2379"],
        "172.20.56.16",
    );
}
