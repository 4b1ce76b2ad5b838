//! What `cargo xtask demo nat` shows: a node-local network with masquerading and host ports, a firewall's
//! restart, and what is left.
//!
//! Every line shown is also a check: a wrong result ends the demo with a panic.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it is shown to a person, and fails like a test"
)]

use integration::{Namespace, Node, Pod, Server, Transport, ask, at};
use serde_json::json;

/// The list that the demo attaches its pods to.
const EXAMPLE: &str = include_str!("../../../examples/node-local.conflist");

const NODE: &str = "192.0.2.1";
const MACHINE: &str = "192.0.2.9";
const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 80;

fn main() {
    heading("a node at 192.0.2.1, and a machine at 192.0.2.9 without a route to the pods");
    let (machine, node) = (Namespace::new("machine"), Node::new("node"));
    machine.ip(&format!("link add port type veth peer name nic0 netns {}", node.name()));
    machine.ip(&format!("link set port up\naddr add {MACHINE}/24 dev port"));
    node.ip(&format!("link set nic0 up\naddr add {NODE}/24 dev nic0"));
    // A node with Docker's policy: forwarded packets are dropped.
    node.run("iptables -P FORWARD DROP").expect_ok();

    heading("the network list (examples/node-local.conflist)");
    println!("{}", EXAMPLE.trim_end());
    let example: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    let list = node.list("local", example["plugins"].as_array().unwrap());
    let client = node.client(&list);

    heading("ADD through libcni: pod a with host port 8080 for TCP and UDP, pod b without");
    let (a, b) = (Pod::new(), Pod::new());
    let mapping = |protocol| json!({"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": protocol});
    let with_ports = a.eth0().capabilities(json!({"portMappings": [mapping("tcp"), mapping("udp")]}));
    for (name, eth0) in [("a", &with_ports), ("b", &b.eth0())] {
        let result = client.add(eth0).result();
        println!("pod {name}: {}", result.cidr());
    }
    println!("\niptables -S FORWARD: the policy, and the one rule of ours that meets it");
    show(&node.run("iptables -S FORWARD").expect_ok().stdout);
    println!("nft list map inet vlan-bridge ports4");
    show(&node.run("nft list map inet vlan-bridge ports4").expect_ok().stdout);

    let hosts: [&Namespace; 2] = [&a, &machine];
    let _servers: Vec<Server> = Transport::ALL
        .into_iter()
        .flat_map(|over| hosts.map(|host| Server::start(host, over, POD_PORT)))
        .collect();
    heading("clients of pod a's host port, and the address that the server sees");
    let localhost = "127.0.0.1";
    for (from, name, to, seen) in [
        (&machine, "the machine", NODE, MACHINE),
        (node.namespace(), "the node itself", NODE, "10.22.0.1"),
        (node.namespace(), "the node itself", localhost, "10.22.0.1"),
        (&*a, "pod a itself", NODE, "10.22.0.1"),
        (&*b, "pod b", NODE, "10.22.0.1"),
    ] {
        exchange(from, name, to, HOST_PORT, seen);
    }
    heading("what leaves a pod's subnet gets the node's address");
    exchange(&b, "pod b", MACHINE, POD_PORT, NODE);

    heading("another pod that asks for the same port");
    let second = Pod::new();
    let refused = client.add(&second.eth0().capabilities(json!({"portMappings": [mapping("tcp")]})));
    assert_eq!(refused.error_code(), 104);
    println!("{}", refused.json()["msg"].as_str().unwrap());

    heading("a firewall's restart: nft flush ruleset");
    node.nft("flush ruleset");
    let checked = client.check(&with_ports);
    assert_eq!(checked.error_code(), 101);
    println!("CHECK of pod a: {}", checked.json()["msg"].as_str().unwrap());
    let third = Pod::new();
    client.add(&third.eth0()).expect_ok();
    println!("ADD of any pod puts back the rules of all:");
    client.check(&with_ports).expect_ok();
    exchange(&machine, "the machine", NODE, HOST_PORT, MACHINE);

    heading("DEL");
    for pod in [&a, &b, &third] {
        client.del(&pod.eth0()).expect_ok();
    }
    let left = node.run("nft list tables").expect_ok().stdout;
    assert!(!left.contains("vlan-bridge"), "{left}");
    println!("no rule of ours is left");
}

/// Asks over TCP and UDP.
fn exchange(from: &Namespace, name: &str, to: &str, port: u16, seen: &str) {
    for over in Transport::ALL {
        let answer = ask(from, over, at(to, port));
        assert_eq!(answer, Some(seen.parse().unwrap()), "{name} to {to}");
        println!("{name:16} -> {:19} the server sees {seen}", format!("{to}:{port}/{}", over.name()));
    }
}

fn heading(text: &str) {
    println!("\n=== {text}");
}

fn show(text: &str) {
    text.lines().for_each(|line| println!("  {}", line.trim_end()));
}
