//! Masqueraded pods are only reachable from outside at published ports.

use crate::nat::{GATEWAY, MACHINE, NODE, Nat, with_ports};
use integration::{AddResult, Namespace, Pod, Server, Transport, ask, at};
use serde_json::json;

const SERVED: u16 = 80;
const MAPPED: u16 = 8080;

/// The chains that iptables-nft makes for `iptables -P FORWARD ACCEPT` and DROP.
fn policy(policy: &str) -> String {
    ["ip", "ip6"]
        .map(|family| format!("table {family} filter {{\n chain FORWARD {{\n type filter hook forward priority 0; policy {policy};\n }}\n}}"))
        .join("\n")
}

/// A node with pods, and a machine beside it with a route to their subnets through the node.
fn scene() -> Nat {
    let nat = Nat::new();
    for third in [22, 33] {
        nat.machine.ip(&format!(
            "route add 10.{third}.0.0/24 via {}\nroute add fd00:{third}::/64 via {}",
            NODE[0], NODE[1]
        ));
    }
    nat
}

fn serve(at: &Namespace) -> [Server; 2] {
    Transport::ALL.map(|over| Server::start(at, over, SERVED))
}

/// The transports and addresses that answer.
fn answers(from: &Namespace, to: &[impl AsRef<str> + Sync], port: u16) -> Vec<String> {
    let asked = to.iter().flat_map(|to| Transport::ALL.map(|over| (to.as_ref(), over)));
    let ask = |(to, over): (&str, Transport)| ask(from, over, at(to, port)).map(|_| format!("{over:?} {to}"));
    std::thread::scope(|scope| {
        let asking: Vec<_> = asked.map(|one| scope.spawn(move || ask(one))).collect();
        asking.into_iter().filter_map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn what_nobody_has_published_is_not_reached_from_outside() {
    for of_forward in ["accept", "drop"] {
        let (nat, pod, neighbour) = (scene(), Pod::new(), Pod::new());
        nat.node.nft(&policy(of_forward));
        let ports = [(MAPPED, "tcp", SERVED, ""), (MAPPED, "udp", SERVED, "")];
        let own = nat.local().add(&with_ports(&pod, &ports)).result().addresses();
        nat.local().add(&neighbour.eth0()).expect_ok();
        let _servers = [serve(&pod), serve(&nat.machine)];
        assert_eq!(answers(&nat.machine, &own, SERVED), [""; 0], "policy {of_forward}");
        for (who, from, to, port) in [
            ("a host port", &nat.machine, &NODE.map(str::to_owned)[..], MAPPED),
            ("the node", nat.node.namespace(), &own[..], SERVED),
            ("a neighbour", &neighbour, &own[..], SERVED),
            ("the way out", &pod, &MACHINE.map(str::to_owned)[..], SERVED),
        ] {
            assert_eq!(answers(from, to, port).len(), 4, "{who}, policy {of_forward}");
        }
    }
}

/// As between two Docker networks.
#[test]
fn pods_of_two_networks_with_nat_reach_each_other_by_host_ports_alone() {
    let (nat, one, other) = (scene(), Pod::new(), Pod::new());
    let second = nat.node.plugin(&nat.list("other", "cni1", &json!({"ipMasq": true})));
    let ports = [(MAPPED, "tcp", SERVED, ""), (MAPPED, "udp", SERVED, "")];
    let of_one = nat.local().add(&with_ports(&one, &ports)).result().addresses();
    let of_other = second.add(&other.eth0()).result().addresses();
    let _servers = [serve(&one), serve(&other)];
    assert_eq!(answers(&other, &of_one, SERVED), [""; 0]);
    assert_eq!(answers(&one, &of_other, SERVED), [""; 0]);
    assert_eq!(answers(&other, &NODE, MAPPED).len(), 4);
}

#[test]
fn a_route_leads_to_pods_without_nat_and_where_it_is_asked_for() {
    let (nat, routed, open, closed) = (scene(), Pod::new(), Pod::new(), Pod::new());
    let asks_for_it = nat.list("local", "cni0", &json!({"ipMasq": true, "allowDirectRouting": true}));
    let reached = |pod: &Pod, result: &AddResult| {
        let _servers = serve(pod);
        answers(&nat.machine, &result.addresses(), SERVED).len()
    };
    let result = nat.other().add(&routed.eth0()).result();
    assert_eq!(reached(&routed, &result), 4, "without NAT");
    let result = nat.node.plugin(&asks_for_it).add(&open.eth0()).result();
    assert_eq!(reached(&open, &result), 4, "allowDirectRouting");
    // Each pod has its own key. A pod without the key is closed.
    let result = nat.local().add(&closed.eth0()).result();
    assert_eq!(reached(&closed, &result), 0);
    // The rules of a pod with the key are restored unchanged.
    nat.node.nft("flush ruleset");
    nat.other().del(&routed.eth0()).expect_ok();
    assert_eq!(reached(&closed, &result), 0, "after a repair");
    assert_eq!(nat.count("closed4 {\n\t\ttype ipv4_addr\n\t\telements"), 1, "{}", nat.rules());
    assert!(!nat.rules().contains(&format!("closed {}", open.id())));
}

#[test]
fn after_a_flush_the_next_call_closes_it_and_check_says_so_before() {
    let (nat, pod, other) = (scene(), Pod::new(), Pod::new());
    let eth0 = pod.eth0();
    let result = nat.local().add(&eth0).result();
    let own = result.addresses();
    let _servers = serve(&pod);
    for damage in [
        "flush ruleset",
        "flush chain inet vlan-bridge closed",
        "flush set inet vlan-bridge closed4\nflush set inet vlan-bridge closed6",
    ] {
        assert_eq!(answers(&nat.machine, &own, SERVED), [""; 0], "before {damage}");
        nat.node.nft(damage);
        assert_eq!(answers(&nat.machine, &own, SERVED).len(), 4, "{damage}: nothing is shown");
        assert_eq!(nat.local().check(&eth0, &result).error_code(), 101, "{damage}");
        if damage.starts_with("flush set") {
            // Another pod's calls restore the whole rule set, but not single elements.
            nat.node.nft("flush ruleset");
        }
        nat.other().add(&other.eth0()).expect_ok();
        nat.other().del(&other.eth0()).expect_ok();
        nat.local().check(&eth0, &result).expect_ok();
        assert!(nat.rules().contains(&own[0]), "{GATEWAY:?}");
    }
    assert_eq!(answers(&nat.machine, &own, SERVED), [""; 0]);
}
