//! Services, for which a pod's node picks a backend, and host ports. A client gets its answer from the
//! address that it asked.

use crate::paths::{Surroundings, dropped_by_rp_filter, dual_stack, machine_beyond, vlan137};
use integration::{BondMode, BondedNode, DataCenter, Namespace, Pod, Server, Transport, ask, at, note};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

const PORT: u16 = 7000;
/// The node's port that leads to the pod's [`PORT`].
const HOST_PORT: u16 = 8000;
const SERVICES: [&str; 2] = ["10.96.0.0/12", "fd96::/108"];

/// The list of VLAN 136 with services and host ports.
fn list(node: &BondedNode, trunk: bool) -> Value {
    let mut list = dual_stack(node, trunk);
    list["plugins"][0]["serviceCIDRs"] = json!(SERVICES);
    list["plugins"][0]["capabilities"] = json!({"portMappings": true});
    list
}

/// An attached pod and its addresses.
struct Attached {
    pod: Pod,
    addresses: [IpAddr; 2],
}

fn attach(node: &BondedNode, list: &Value, ports: Value) -> Attached {
    let pod = Pod::new();
    let eth0 = pod.eth0().capabilities(json!({"portMappings": ports}));
    let given = node.client(list).add(&eth0).result().addresses();
    Attached { addresses: [given[0].parse().unwrap(), given[1].parse().unwrap()], pod }
}

fn both(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().unwrap())
}

fn serve(namespace: &Namespace, addresses: [IpAddr; 2], port: u16) -> Vec<Server> {
    let listen =
        |ip| Transport::ALL.map(|transport| Server::on(namespace, transport, SocketAddr::new(ip, port)));
    addresses.into_iter().flat_map(listen).collect()
}

/// The rules of kube-proxy on every node, with one service for each backend. 10.96.0.1 and fd96::1 lead to
/// the first backend.
fn proxy(node: &Namespace, backends: &[[IpAddr; 2]]) {
    let mut rules = String::new();
    for (index, [v4, v6]) in backends.iter().enumerate() {
        let service = index + 1;
        rules += &format!(
            "  ip daddr 10.96.0.{service} dnat ip to {v4}\n  ip6 daddr fd96::{service} dnat ip6 to {v6}\n"
        );
    }
    node.nft(&format!(
        "table inet proxy {{\n chain pre {{\n  type nat hook prerouting priority -100;\n{rules} }}\n \
         chain out {{\n  type nat hook output priority -100;\n{rules} }}\n}}\n"
    ));
}

/// One exchange: the client, the address it asks, and the client address that the server should see.
struct Exchange<'a> {
    what: &'static str,
    client: &'a Namespace,
    to: [SocketAddr; 2],
    seen: [IpAddr; 2],
}

/// Tries every exchange in both families over both transports. Prints a line for each, and returns the
/// failures.
fn try_all<'a>(title: &str, exchanges: impl IntoIterator<Item = &'a Exchange<'a>>) -> Vec<String> {
    let (mut table, mut failures) = (title.to_owned(), Vec::new());
    for exchange in exchanges {
        table += &format!("\n{:>46}", exchange.what);
        for (to, expected) in exchange.to.iter().zip(exchange.seen) {
            for transport in Transport::ALL {
                let seen = ask(exchange.client, transport, *to);
                let ok = seen == Some(expected);
                let family = if to.is_ipv4() { "v4" } else { "v6" };
                table += &format!(" {family} {} {:<4}", transport.name(), if ok { "ok" } else { "LOST" });
                if !ok {
                    failures.push(format!(
                        "{title}: {} at {to} {}: saw {seen:?}, not {expected}",
                        exchange.what,
                        transport.name()
                    ));
                }
            }
        }
    }
    note(&table);
    failures
}

#[test]
fn services_and_host_ports_of_pods_on_a_sub_interface() {
    services_and_host_ports(false);
}

#[test]
fn services_and_host_ports_of_pods_on_a_trunk() {
    services_and_host_ports(true);
}

fn services_and_host_ports(trunk: bool) {
    let datacenter = DataCenter::new();
    let [node1, node2] = datacenter.nodes([BondMode::Lacp, BondMode::RoundRobin]);
    // Docker's bridge. The kernel would use its address as the source if the plugin chose none.
    node1.ip("link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up");
    let router = datacenter.router();
    let ports = json!([{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"},
                       {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "udp"}]);
    let nodes = [node1.namespace(), node2.namespace()];
    Surroundings::before_the_first_pod(nodes);
    let client = attach(&node1, &list(&node1, trunk), ports);
    let same_node = attach(&node1, &list(&node1, trunk), json!([]));
    let other_node = attach(&node2, &list(&node2, trunk), json!([]));
    let (other_vlan, beyond) = (attach(&node2, &vlan137(&node2, trunk), json!([])), machine_beyond(router));
    let in_51 = |node: &BondedNode| both([&node.address(51), &node.address6(51)]);
    let (own, other) = (in_51(&node1), in_51(&node2));
    let gateway = both(["172.20.57.1", "fd00:137::1"]);
    let backends = [same_node.addresses, other_node.addresses, gateway, own, other, client.addresses];
    proxy(&node1, &backends);
    let _serving: Vec<Server> = [
        (&client.pod as &Namespace, client.addresses),
        (&same_node.pod, same_node.addresses),
        (&other_node.pod, other_node.addresses),
        (router, gateway),
        (&node1, own),
        (&node2, other),
    ]
    .into_iter()
    .flat_map(|(namespace, addresses)| serve(namespace, addresses, PORT))
    .collect();

    let service = |number: usize| {
        both([&format!("10.96.0.{number}"), &format!("fd96::{number}")]).map(|ip| SocketAddr::new(ip, PORT))
    };
    let asks = |what, number, seen| Exchange { what, client: &client.pod, to: service(number), seen };
    let host_port = own.map(|ip| SocketAddr::new(ip, HOST_PORT));
    let localhost = [at("127.0.0.1", HOST_PORT), host_port[1]];
    let comes = |what, client, to| Exchange { what, client, to, seen: own };
    let exchanges = [
        asks("service, pod on the same node", 1, own),
        asks("service, pod on another node, same VLAN", 2, own),
        asks("service, in another VLAN", 3, own),
        asks("service, the node itself", 4, client.addresses),
        asks("service, another node itself", 5, own),
        asks("service, the pod itself", 6, own),
        Exchange { what: "service, from the node", client: &node1, to: service(1), seen: own },
        comes("host port, from the pod itself", &client.pod, host_port),
        comes("host port, from a pod on the same node", &same_node.pod, host_port),
        comes("host port, from a pod on another node", &other_node.pod, host_port),
        comes("host port, from a pod in another VLAN", &other_vlan.pod, host_port),
        comes("host port, from the router", router, host_port),
        comes("host port, from a machine beyond", &beyond, host_port),
        comes("host port, from another node", &node2, host_port),
        comes("host port, from the node", &node1, host_port),
        comes("host port, from the node at 127.0.0.1", &node1, localhost),
    ];
    for Attached { pod, .. } in [&client, &same_node, &other_node, &other_vlan] {
        gateway.iter().for_each(|gateway| pod.wait_for(&gateway.to_string()));
    }
    let before = dropped_by_rp_filter(&node1);
    let mut failures = Vec::new();
    for surroundings in Surroundings::of(trunk) {
        failures.extend(try_all(&surroundings.set(nodes, trunk), exchanges.iter()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(dropped_by_rp_filter(&node1), before, "reverse path filtering has dropped something");

    let plugin = node1.client(&list(&node1, trunk));
    plugin.check(&client.pod.eth0()).expect_ok();
    assert_eq!(node1.run("grep -l 1 -r /proc/sys/net/ipv4/conf --include=route_localnet").stdout, "");
    // The node forwarded only translated packets and those of known connections. Our rules drop all others,
    // on the bridge and on the node's interface in each VLAN.
    let bridge = list(&node1, trunk)["plugins"][0]["bridge"].as_str().unwrap().to_owned();
    let closed = node1.run("nft list table inet vlan-bridge-uplinks").expect_ok().stdout;
    let sides: &[&str] = if trunk { &["", ".136"] } else { &[""] };
    for device in sides.iter().map(|side| format!("{bridge}{side}")) {
        assert!(
            closed.contains(&format!("iifname \"{device}\" oifname != \"{device}\"")),
            "{device}: {closed}"
        );
    }
    for pod in [&client.pod, &same_node.pod] {
        plugin.del(&pod.eth0()).expect_ok();
    }
    node1.nft("delete table inet proxy");
    let rules = node1.run("nft list ruleset").expect_ok().stdout;
    assert!(!rules.contains("172.20.56."), "{rules}");
    assert_eq!(node1.run("ip route show proto 117").expect_ok().stdout, "");
}
