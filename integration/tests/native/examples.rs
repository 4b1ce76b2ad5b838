//! The node-local list of `examples/`, unchanged.

use integration::{Namespace, Node, Pod, Server, Snapshot, Transport, ask};
use serde_json::json;
use std::net::SocketAddr;

const NODE_LOCAL: &str = include_str!("../../../examples/node-local.conflist");

const NODE: &str = "192.0.2.1";
const MACHINE: &str = "192.0.2.9";
const GATEWAY: &str = "10.22.0.1";

#[test]
fn the_node_local_example_masquerades_and_maps_host_ports() {
    let (machine, node) = (Namespace::new("machine"), Node::new("node"));
    machine.ip(&format!("link add port type veth peer name nic0 netns {}", node.name()));
    machine.ip(&format!("link set port up\naddr add {MACHINE}/24 dev port"));
    node.ip(&format!("link set nic0 up\naddr add {NODE}/24 dev nic0"));
    machine.wait_for(NODE);
    let list = node.example(NODE_LOCAL);
    let client = node.client(&list);
    // The bridge stays.
    let first = Pod::new();
    client.add(&first.eth0()).expect_ok();
    client.del(&first.eth0()).expect_ok();
    let before = Snapshot::of(&node);

    let (web, other) = (Pod::new(), Pod::new());
    let ports = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
    ]);
    let web_eth0 = web.eth0().capabilities(json!({"portMappings": ports}));
    let of_web = client.add(&web_eth0).result().address();
    let of_other = client.add(&other.eth0()).result().address();
    let _servers =
        Transport::ALL.map(|over| [Server::start(&web, over, 80), Server::start(&machine, over, 80)]);
    for over in Transport::ALL {
        let exchange = |from: &Namespace, to: &str, port: u16, seen: &str| {
            let answer = ask(from, over, SocketAddr::new(to.parse().unwrap(), port));
            assert_eq!(answer, Some(seen.parse().unwrap()), "{} to {to}:{port}", from.name());
        };
        exchange(&machine, NODE, 8080, MACHINE);
        exchange(&node, NODE, 8080, GATEWAY);
        exchange(&other, &of_web, 80, &of_other);
        exchange(&other, MACHINE, 80, NODE);
    }
    for eth0 in [&web_eth0, &other.eth0()] {
        client.check(eth0).expect_ok();
        client.del(eth0).expect_ok();
    }
    before.assert_unchanged(&node);
    assert!(node.leases("local").is_empty());
}
