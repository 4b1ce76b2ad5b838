//! What `cargo xtask demo pool` shows: three nodes with a /28 each. One is full while two are idle, so it
//! borrows theirs, and gives them back.
//!
//! Every line shown is also a check: a wrong result ends the demo with a panic.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it is shown to a person, and fails like a test"
)]

use integration::{Agent, Ctl, Pod, PoolSite, poll};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// All addresses of the pool.
const PODS: usize = 48;

fn main() {
    heading("three nodes on one VLAN, and etcd");
    let site = PoolSite::new(NODES);
    let lists: Vec<Value> =
        (0..NODES).map(|node| site.list(node, &json!({"pool": {"home": "lent", "wait": 20}}))).collect();
    let ctls: Vec<Ctl<'_>> = (0..NODES).map(|node| site.ctl(node, &lists[node])).collect();
    for node in 0..NODES {
        println!("node{node}: slice {}", PoolSite::slice(node));
    }

    heading("vlan-bridgectl pool create vlan136 --range 172.20.56.16-172.20.56.63");
    site.create(&ctls[0], "172.20.56.16-172.20.56.63");
    println!("the key pool of node0's network list:");
    show(&format!("{:#}", lists[0]["plugins"][0]["ipam"]["pool"]));

    heading("an agent on each node takes the node's own slice from the pool");
    let _agents: Vec<Agent> = (0..NODES).map(|node| site.agent(&ctls[node], node)).collect();
    for node in 0..NODES {
        poll(Duration::from_secs(30), "the slices", || site.granted(node, "home").len() == 16);
    }
    picture(&ctls[0]);

    heading("48 pods on node0, whose slice has 16 addresses");
    let mut pods: Vec<(Pod, String)> = Vec::new();
    for part in 0..3 {
        let start = Instant::now();
        let more: Vec<_> = (0..PODS / 3).map(|_| site.pod(0, &lists[0])).collect();
        let took = start.elapsed().as_secs_f64();
        println!("\npods {} to {}: {took:.2} s", part * 16 + 1, part * 16 + 16);
        pods.extend(more);
        picture(&ctls[0]);
    }
    let addresses: BTreeSet<&str> = pods.iter().map(|(_, address)| &**address).collect();
    assert_eq!(addresses.len(), PODS, "an address was given twice");
    println!("48 pods, 48 addresses, none refused");
    let (last, address) = pods.last().unwrap();
    last.wait_for("172.20.56.1");
    println!("the router answers the last pod, {address}");

    heading("one more pod, on node1");
    let (_pod, refused) = site.add(1, &site.list(1, &json!({"pool": {"home": "lent", "wait": 1}})));
    assert_eq!(refused.error_code(), 11);
    println!("{}", refused.json()["msg"].as_str().unwrap());

    heading("the pods of node0 end, and node1 and node2 get addresses back");
    for (pod, _) in &pods {
        site.del(0, &lists[0], pod);
    }
    let start = Instant::now();
    for (node, list) in lists.iter().enumerate().skip(1) {
        let mut got = None;
        // Addresses rest for a minute on their node before they go to another.
        poll(Duration::from_secs(150), "an address", || {
            let (pod, outcome) = site.add(node, list);
            got = outcome.ok().then(|| (pod, outcome.result().address()));
            got.is_some()
        });
        let (_, address) = got.unwrap();
        println!("node{node}: {address}, after {:.0} s", start.elapsed().as_secs_f64());
    }
    picture(&ctls[0]);
}

/// The pool as an operator sees it.
fn picture(ctl: &Ctl<'_>) {
    show(&ctl.run(&format!("pool show {}", PoolSite::POOL)).expect_ok().stdout);
}

fn heading(text: &str) {
    println!("\n=== {text}");
}

fn show(text: &str) {
    text.lines().for_each(|line| println!("  {}", line.trim_end()));
}
