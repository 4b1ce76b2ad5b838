//! The rules of NAT mode in the packet filter, and the refused configurations.

use crate::nat::{NODE, Nat, TABLE, with_ports};
use integration::{Pod, Server, Transport, ask, at, run_all};
use serde_json::json;
use std::fs;

const PORTS: [(u16, &str, u16, &str); 3] =
    [(8080, "tcp", 80, ""), (8080, "udp", 80, ""), (8080, "sctp", 80, "192.0.2.2")];

#[test]
fn an_attachment_leaves_nothing_however_it_is_detached() {
    let nat = Nat::new();
    for forget in [false, true] {
        let pod = Pod::new();
        let eth0 = with_ports(&pod, &PORTS);
        nat.local().add(&eth0).expect_ok();
        // A masquerade and a hairpin of each family, tcp and udp of both, sctp of one.
        assert_eq!(nat.count(pod.id()), 13, "{}", nat.rules());
        assert!(nat.rules().contains("192.0.2.2 . sctp . 8080"), "{}", nat.rules());
        let eth0 = if forget { pod.eth0().without_netns() } else { pod.eth0() };
        for _ in 0..2 {
            nat.local().del(&eth0).expect_ok();
        }
        nat.assert_nothing_left();
    }
    // With its namespace gone, and a runtime that only knows the ID.
    let pod = Pod::new();
    let eth0 = pod.eth0().without_netns();
    nat.local().add(&with_ports(&pod, &PORTS)).expect_ok();
    drop(pod);
    nat.local().del(&eth0).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn without_its_record_an_attachment_is_found_by_the_comments() {
    let (nat, pod, stays) = (Nat::new(), Pod::new(), Pod::new());
    nat.local().add(&with_ports(&pod, &PORTS)).expect_ok();
    nat.other().add(&with_ports(&stays, &[(9090, "tcp", 80, "")])).expect_ok();
    let subnet = "10.22.0.0/24";
    assert!(nat.count(subnet) > 0);
    for record in fs::read_dir(nat.node.records()).unwrap().flatten() {
        let text = fs::read_to_string(record.path()).unwrap();
        if text.contains(pod.id()) {
            // Torn, as by a full disk.
            fs::write(record.path(), &text[..20]).unwrap();
        }
    }
    nat.local().del(&pod.eth0().without_netns()).expect_ok();
    assert_eq!((nat.count(pod.id()), nat.count(subnet)), (0, 0), "{}", nat.rules());
    assert!(nat.count(stays.id()) > 0);
    nat.other().del(&stays.eth0()).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn gc_removes_what_nobody_knows_of_and_leaves_the_rest() {
    let (nat, pod, kept, elsewhere) = (Nat::new(), Pod::new(), Pod::new(), Pod::new());
    nat.local().add(&with_ports(&pod, &PORTS)).expect_ok();
    nat.local().add(&with_ports(&kept, &[(8081, "tcp", 80, "")])).expect_ok();
    nat.other().add(&with_ports(&elsewhere, &[(8082, "tcp", 80, "")])).expect_ok();
    let gc = |valid| nat.local().with("cni.dev/valid-attachments", valid).gc().expect_ok();
    gc(json!([kept.eth0().valid()]));
    assert_eq!((nat.count(pod.id()), nat.count(kept.id())), (0, 9), "{}", nat.rules());
    // A pod whose record is gone too.
    for record in fs::read_dir(nat.node.records()).unwrap().flatten() {
        if fs::read_to_string(record.path()).unwrap().contains(kept.id()) {
            fs::remove_file(record.path()).unwrap();
        }
    }
    // And the temporary file of a killed call.
    fs::write(nat.node.records().join(".veth0123456789a"), "{").unwrap();
    gc(json!([]));
    assert_eq!(nat.count(kept.id()), 0, "{}", nat.rules());
    assert!(nat.count(elsewhere.id()) > 0);
    nat.other().del(&elsewhere.eth0()).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn the_last_pod_of_a_network_takes_its_subnet_along() {
    let (nat, first, last, other) = (Nat::new(), Pod::new(), Pod::new(), Pod::new());
    for pod in [&first, &last] {
        nat.local().add(&pod.eth0()).expect_ok();
    }
    nat.other().add(&with_ports(&other, &PORTS)).expect_ok();
    let subnet = || nat.count("10.22.0.0/24") + nat.count("fd00:22::/64");
    nat.local().del(&first.eth0()).expect_ok();
    assert!(subnet() > 0, "{}", nat.rules());
    nat.local().del(&last.eth0()).expect_ok();
    assert_eq!(subnet(), 0, "{}", nat.rules());
    nat.other().del(&other.eth0()).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn a_port_of_the_loopback_of_ipv6_is_refused() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let outcome = nat.local().add(&with_ports(&pod, &[(8080, "tcp", 80, "::1")]));
    assert_eq!(outcome.error_code(), 7, "{outcome}");
    assert!(outcome.error_text().contains("hostIP of host port [::1]:8080/tcp"), "{outcome}");
    nat.assert_nothing_left();
}

#[test]
fn a_port_that_is_mapped_is_refused_with_its_holders_name() {
    let (nat, holder, second) = (Nat::new(), Pod::new(), Pod::new());
    nat.local().add(&with_ports(&holder, &PORTS)).expect_ok();
    let held = || nat.count(holder.id());
    let before = held();
    for (ports, told) in [
        ([(9999, "tcp", 80, ""), (8080, "udp", 81, "")], "host port 8080/udp"),
        ([(9999, "tcp", 80, ""), (8080, "sctp", 81, "192.0.2.2")], "host port 8080/sctp of 192.0.2.2"),
    ] {
        let outcome = nat.other().add(&with_ports(&second, &ports));
        assert_eq!(outcome.error_code(), 104, "{outcome}");
        let holder = format!("{told}: held by container {}, interface eth0, network local", holder.id());
        assert!(outcome.error_text().contains(&holder), "{outcome}");
        assert!(!second.has_link("eth0") && nat.node.leases("other").is_empty());
        assert_eq!(nat.count("9999"), 0, "{}", nat.rules());
        assert_eq!(held(), before, "the holder keeps what it has: {}", nat.rules());
    }
    // The same port of another protocol or address is free.
    let free = [(8080, "sctp", 81, "192.0.2.1"), (8081, "tcp", 81, "")];
    nat.other().add(&with_ports(&second, &free)).expect_ok();
    nat.local().del(&holder.eth0()).expect_ok();
    nat.other().del(&second.eth0()).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn a_dead_holders_port_is_taken_over_and_stays_when_the_dead_is_detached() {
    let (nat, dead, heir) = (Nat::new(), Pod::new(), Pod::new());
    nat.local().add(&with_ports(&dead, &PORTS)).expect_ok();
    let gone = dead.eth0().without_netns();
    drop(dead);
    let veths = || nat.node.ip_json("link show type veth").as_array().map_or(0, Vec::len);
    integration::poll(std::time::Duration::from_secs(10), "the dead pod's veth is gone", || veths() == 1);
    nat.other().add(&with_ports(&heir, &PORTS)).expect_ok();
    assert_eq!((nat.count(&gone.id), nat.count(heir.id())), (0, 9), "{}", nat.rules());
    nat.local().del(&gone).expect_ok();
    assert_eq!(nat.count(heir.id()), 9, "{}", nat.rules());
    nat.other().del(&heir.eth0()).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn what_cannot_be_mapped_is_refused_and_leaves_nothing() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let only_v6 = json!({"ipam": {"ranges": [[{"subnet": "fd00:22::/64"}]]}});
    let list = nat.list("local", "cni0", &only_v6);
    let plugin = nat.node.plugin(&list);
    for (ports, told) in [
        ((0, "tcp", 80, ""), "portMappings[0].hostPort: 0 is not a port: 1 to 65535"),
        ((80, "icmp", 80, ""), "portMappings[0].protocol: \"icmp\" is not one of tcp, udp, sctp"),
        ((80, "tcp", 80, "192.0.2.1"), "host port 192.0.2.1:80/tcp: the pod has no address of that family"),
    ] {
        let outcome = plugin.add(&with_ports(&pod, &[ports]));
        assert_eq!(outcome.error_code(), 7, "{outcome}");
        assert!(outcome.error_text().contains(told), "{outcome}");
        nat.assert_nothing_left();
    }
}

/// A plain configuration must not touch the packet filter, because each system call costs time. The ADD of a
/// gateway must look for policies of drop.
#[test]
fn without_nat_no_rule_is_looked_at_and_no_record_is_kept() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let gateway = nat.list("local", "cni0", &json!({"capabilities": null}));
    let plain = nat.list(
        "local",
        "cni0",
        &json!({"capabilities": null, "isGateway": false, "isDefaultGateway": false}),
    );
    let eth0 = with_ports(&pod, &PORTS);
    for (list, verb, asked) in
        [(&plain, "ADD", 0), (&plain, "DEL", 0), (&gateway, "ADD", 1), (&gateway, "DEL", 0)]
    {
        let trace = nat.node.folder().path().join("trace");
        let words = ["strace", "-f", "-qq", "-e", "trace=socket,mkdir,sendto", "-o", trace.to_str().unwrap()];
        nat.node.plugin(list).call(verb, &eth0).run_under(&words).expect_ok();
        let trace = fs::read_to_string(trace).unwrap();
        assert!(trace.contains("NETLINK_ROUTE"), "{trace}");
        assert_eq!(trace.matches("NETLINK_NETFILTER").count(), asked, "{trace}");
        assert!(!trace.contains("attachments"), "{trace}");
    }
    nat.assert_nothing_left();
}

#[test]
fn many_at_once() {
    const PODS: u16 = 50;
    let nat = Nat::new();
    let list = nat.list("local", "cni0", &json!({"ipMasq": true}));
    let client = nat.node.client(&list);
    let pods: Vec<Pod> = (0..PODS).map(|_| Pod::new()).collect();
    let attachments: Vec<_> = (0..PODS)
        .zip(&pods)
        .map(|(i, pod)| with_ports(pod, &[(9000 + i, "tcp", 80, ""), (9000 + i, "udp", 80, "")]))
        .collect();
    for round in 0..2 {
        let run = |verb: &str| {
            let commands = attachments.iter().map(|eth0| client.command_for(verb, eth0)).collect();
            run_all(commands).into_iter().for_each(|outcome| drop(outcome.expect_ok()));
        };
        run("add");
        for pod in &pods {
            assert_eq!(nat.count(pod.id()), 12, "round {round}: {}", nat.rules());
        }
        run("del");
        nat.assert_nothing_left();
    }
}

/// The reference plugin in a list in which our entry does not declare the capability.
#[test]
fn a_chained_portmap_still_does_the_ports() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let mut list = nat.list("local", "cni0", &json!({"capabilities": null}));
    list["plugins"].as_array_mut().unwrap().push(json!({
        "type": "portmap", "backend": "nftables", "snat": true, "capabilities": {"portMappings": true},
    }));
    let client = nat.node.client(&list);
    let eth0 = with_ports(&pod, &[(8080, "tcp", 80, "")]);
    client.add(&eth0).expect_ok();
    let _server = Server::start(&pod, Transport::Tcp, 80);
    let to = at(NODE[0], 8080);
    assert_eq!(ask(&nat.machine, Transport::Tcp, to), Some("192.0.2.9".parse().unwrap()));
    assert!(!nat.rules().contains(TABLE), "{}", nat.rules());
    client.del(&eth0).expect_ok();
}

/// A UDP conversation that goes on while the port moves must reach the new pod. Without a pod, its packets
/// reach no pod.
#[test]
fn udp_conversations_follow_the_port() {
    let nat = Nat::new();
    let to = at(NODE[0], 8080);
    let client = nat.machine.enter(|| {
        let socket = std::net::UdpSocket::bind("192.0.2.9:7777").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        socket.connect(to).unwrap();
        socket
    });
    let answer = || {
        client.send(b"my addr?").ok();
        client.recv(&mut [0; 64]).is_ok()
    };
    // Before there is a pod, conntrack assigns the conversation to the node.
    assert!(!answer());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let pod = Pod::new();
        let eth0 = with_ports(&pod, &[(8080, "udp", 80, "")]);
        let own = nat.local().add(&eth0).result().addresses();
        let server = Server::start(&pod, Transport::Udp, 80);
        // The refusal of an earlier packet may still be in the socket's queue.
        integration::poll(std::time::Duration::from_secs(5), "the conversation reaches the pod", answer);
        seen.push(own[0].clone());
        nat.local().del(&pod.eth0()).expect_ok();
        drop(server);
        let entries = nat.node.read("/proc/thread-self/net/nf_conntrack");
        assert!(!entries.contains(&own[0]), "{entries}");
        assert!(!answer());
    }
    assert_ne!(seen[0], seen[1], "both pods had one address: this shows nothing");
}

/// A node that accepts router advertisements still does so on its uplink, but accepts none from its pods.
#[test]
fn a_node_that_begins_to_forward_takes_no_pod_for_its_router() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let accepts = |interface: &str| nat.node.sysctl(&format!("net/ipv6/conf/{interface}/accept_ra"));
    nat.node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    nat.node.set_sysctl("net/ipv6/conf/default/accept_ra", "1");
    nat.local().add(&pod.eth0()).expect_ok();
    assert_eq!(nat.node.sysctl("net/ipv6/conf/all/forwarding"), "1");
    assert_eq!((accepts("cni0"), accepts("default")), ("0".into(), "1".into()));
    nat.local().del(&pod.eth0()).expect_ok();
}

/// podman publishes a container's ports on each of its networks. They lead to the first network, and to the
/// other one after the first is gone.
#[test]
fn a_container_on_two_networks_has_its_ports_once_and_keeps_them_with_either() {
    let (nat, pod, other) = (Nat::new(), Pod::new(), Pod::new());
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let [eth0, eth1] = ["eth0", "eth1"].map(|name| pod.interface(name).capabilities(ports.clone()));
    let (first, second) =
        (nat.local(), nat.other().with("isDefaultGateway", json!(false)).with("isGateway", json!(true)));
    let _server = Server::start(&pod, Transport::Tcp, 80);
    let is_reached = || {
        let to = at(NODE[0], 8080);
        ask(&nat.machine, Transport::Tcp, to).is_some()
    };
    for from_first in [true, false] {
        let results = [first.add(&eth0), second.add(&eth1)].map(|outcome| outcome.result());
        assert!(is_reached());
        first.check(&eth0, &results[0]).expect_ok();
        second.check(&eth1, &results[1]).expect_ok();
        // The port still belongs to the other container.
        let taken = first.add(&other.eth0().capabilities(ports.clone()));
        assert_eq!(taken.error_code(), 104, "{taken}");
        if from_first {
            first.del(&eth0).expect_ok();
            // The pod's packets leave through the remaining network.
            pod.ip("route replace default via 10.33.0.1");
            second.check(&eth1, &results[1]).expect_ok();
        } else {
            second.del(&eth1).expect_ok();
            first.check(&eth0, &results[0]).expect_ok();
        }
        assert!(is_reached(), "{from_first}: {}", nat.rules());
        if from_first { second.del(&eth1) } else { first.del(&eth0) }.expect_ok();
        first.del(&other.eth0()).expect_ok();
        nat.assert_nothing_left();
    }
}
