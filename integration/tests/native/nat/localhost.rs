//! Host ports at 127.0.0.1: they work for the node, and 127.0.0.0/8 stays closed to all other machines.

use crate::nat::{GATEWAY, MACHINE, NODE, Nat, with_ports};
use integration::{Namespace, Pod, Server, Site, Transport, ask};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// The port in the pod, and the node's port.
const SERVED: u16 = 80;
const MAPPED: u16 = 8080;
/// The port of a server on the node, at 127.0.0.1 only.
const PRIVATE: u16 = 5353;
/// Longer than the limit of any exchange.
const PATIENCE: Duration = Duration::from_secs(10);

fn localhost(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Makes a machine send packets for 127.0.0.1 to a neighbour.
fn send_localhost_to(machine: &Namespace, device: &str, neighbour: &str, from: &str) {
    machine.set_sysctl(&format!("net/ipv4/conf/{device}/route_localnet"), "1");
    machine.ip("addr del 127.0.0.1/8 dev lo");
    machine.ip(&format!("route add 127.0.0.1 via {neighbour} dev {device} src {from} onlink"));
}

/// The devices of a node that accept packets from 127.0.0.0/8.
fn taking_localhost(node: &Namespace) -> String {
    node.run("grep -l 1 -r /proc/sys/net/ipv4/conf --include=route_localnet").stdout
}

/// The kernel checks for martians only after a packet's destination has become the pod's address.
#[test]
fn a_port_of_localhost_is_the_nodes_alone() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let ports = [(MAPPED, "tcp", SERVED, "127.0.0.1"), (MAPPED, "udp", SERVED, "127.0.0.1")];
    nat.local().add(&with_ports(&pod, &ports)).expect_ok();
    let _servers = Transport::ALL.map(|over| Server::start(&pod, over, SERVED));
    send_localhost_to(&nat.machine, "port", "192.0.2.1", "192.0.2.9");
    let asks = |from: &Namespace| Transport::ALL.map(|over| ask(from, over, localhost(MAPPED)));
    // The setting of kube-proxy.
    for all in ["0", "1"] {
        nat.node.set_sysctl("net/ipv4/conf/all/route_localnet", all);
        assert_eq!(asks(&nat.node), [Some(GATEWAY[0].parse().unwrap()); 2], "all.route_localnet {all}");
        assert_eq!(asks(&nat.machine), [None; 2], "all.route_localnet {all}");
    }
    nat.node.set_sysctl("net/ipv4/conf/all/route_localnet", "0");
    nat.node.nft("flush chain inet vlan-bridge raw");
    assert!(
        ask(&nat.machine, Transport::Udp, localhost(MAPPED)).is_some(),
        "without the rule it would not either"
    );
    nat.local().add(&Pod::new().eth0()).expect_ok();
    assert_eq!(asks(&nat.machine), [None; 2]);
}

/// No device accepts packets from 127.0.0.0/8 for a host port, so safety does not depend on a rule that can
/// be flushed.
#[test]
fn what_listens_on_localhost_is_the_nodes_alone_after_a_flush_too() {
    let (nat, pod) = (Nat::new(), Pod::new());
    nat.local().add(&with_ports(&pod, &[(MAPPED, "tcp", SERVED, "")])).expect_ok();
    let _server = Server::on(&nat.node, Transport::Tcp, localhost(PRIVATE));
    let asks = |from: &Namespace| ask(from, Transport::Tcp, localhost(PRIVATE));
    assert!(asks(&nat.node).is_some());
    pod.set_sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    pod.ip("addr del 127.0.0.1/8 dev lo\nroute add 127.0.0.1 via 10.22.0.1");
    send_localhost_to(&nat.machine, "port", "192.0.2.1", "192.0.2.9");
    assert_eq!(taking_localhost(&nat.node), "");
    for flushed in [false, true] {
        if flushed {
            nat.node.nft("flush ruleset");
        }
        assert_eq!(asks(&pod), None, "flushed: {flushed}");
        assert_eq!(asks(&nat.machine), None, "flushed: {flushed}");
    }
    nat.node.set_sysctl("net/ipv4/conf/cni0/route_localnet", "1");
    assert!(asks(&pod).is_some(), "it could not anyway: this test shows nothing");
    nat.node.set_sysctl("net/ipv4/conf/cni0/route_localnet", "0");
}

/// Programs on the node trust 127.0.0.1. With some settings, such as those of load balancers, the kernel
/// accepts it from outside.
#[test]
fn nobody_outside_passes_for_the_node_at_localhost() {
    let (nat, pod) = (Nat::new(), Pod::new());
    nat.local().add(&with_ports(&pod, &[(MAPPED, "udp", SERVED, "")])).expect_ok();
    for (setting, value) in [("route_localnet", "1"), ("accept_local", "1"), ("rp_filter", "0")] {
        for device in ["all", "nic0"] {
            nat.node.set_sysctl(&format!("net/ipv4/conf/{device}/{setting}"), value);
        }
    }
    nat.machine.set_sysctl("net/ipv4/conf/port/route_localnet", "1");
    let bound = |namespace: &Namespace, to: SocketAddr| namespace.enter(|| UdpSocket::bind(to)).unwrap();
    let listens: SocketAddr = (NODE[0].parse::<IpAddr>().unwrap(), PRIVATE).into();
    let (trusting, forger) = (bound(&nat.node, listens), bound(&nat.machine, localhost(0)));
    let honest = bound(&nat.machine, (MACHINE[0].parse::<IpAddr>().unwrap(), 0).into());
    trusting.set_read_timeout(Some(PATIENCE)).unwrap();
    // Both use one cable, so a packet that comes first was not dropped.
    let passes = || {
        for from in [&forger, &honest] {
            from.send_to(b"?", listens).unwrap();
        }
        let is_forged = trusting.recv_from(&mut [0; 9]).unwrap().1.ip().is_loopback();
        if is_forged {
            trusting.recv_from(&mut [0; 9]).unwrap();
        }
        is_forged
    };
    assert!(!passes());
    nat.node.nft("flush chain inet vlan-bridge raw");
    assert!(passes(), "without the rule it would not either");
}

/// On a network with an uplink, the pod sees the node's address.
#[test]
fn a_pod_with_an_uplink_is_reached_at_localhost() {
    let (site, pod) = (Site::new(), Pod::new());
    site.give_node_its_own_network();
    let mut conf = site.conf();
    conf["capabilities"] = json!({"portMappings": true});
    let plugin = site.node.plugin(&site.node.list("ports", &[conf]));
    plugin.add(&with_ports(&pod, &[(MAPPED, "tcp", SERVED, ""), (MAPPED, "udp", SERVED, "")])).expect_ok();
    let _servers = Transport::ALL.map(|over| Server::start(&pod, over, SERVED));
    for over in Transport::ALL {
        let seen = ask(&site.node, over, localhost(MAPPED));
        assert!(seen.is_some_and(|seen| !seen.is_loopback()), "{over:?}: {seen:?}");
    }
    assert_eq!(taking_localhost(&site.node), "");
}

/// One send is more than a packet: the kernel leaves checksums and segments to later stages.
#[test]
fn localhost_carries_as_much_as_any_address() {
    const SIZE: usize = 8 << 20;
    let (nat, pod) = (Nat::new(), Pod::new());
    let ports = [(MAPPED, "tcp", SERVED, ""), (MAPPED, "udp", SERVED, ""), (81, "tcp", SERVED, "127.0.0.5")];
    nat.local().add(&with_ports(&pod, &ports)).expect_ok();
    let listener = pod.enter(|| TcpListener::bind(("0.0.0.0", SERVED)).unwrap());
    let echo = pod.enter(|| UdpSocket::bind(("0.0.0.0", SERVED)).unwrap());
    echo.set_read_timeout(Some(PATIENCE)).unwrap();
    let targets = [localhost(MAPPED), ([127, 0, 0, 2], MAPPED).into(), ([127, 0, 0, 5], 81).into()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in targets {
                let (mut stream, _) = listener.accept().unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                stream.write_all(&got).unwrap();
            }
        });
        let sent: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
        for to in targets {
            let mut stream = nat.node.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), to);
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == sent, "{to}: {} bytes came back of {SIZE}", got.len());
        }
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut datagram = vec![0; 65536];
            for _ in 0..3 {
                let (length, from) = echo.recv_from(&mut datagram).unwrap();
                echo.send_to(&datagram[..length], from).unwrap();
            }
        });
        let asking = nat.node.enter(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        asking.set_read_timeout(Some(PATIENCE)).unwrap();
        for size in [1, 1400, 20000] {
            asking.send_to(&vec![7; size], localhost(MAPPED)).unwrap();
            let mut answer = vec![0; 65536];
            assert_eq!(asking.recv_from(&mut answer).unwrap(), (size, localhost(MAPPED)));
        }
    });
}

/// A refusal comes at once: by TCP itself, for UDP by ICMP. The same holds for an address that can send
/// nothing outside the node.
#[test]
fn a_refusal_comes_back_to_localhost() {
    let (nat, pod) = (Nat::new(), Pod::new());
    nat.local()
        .add(&with_ports(&pod, &[(MAPPED, "tcp", SERVED, ""), (MAPPED, "udp", SERVED, "")]))
        .expect_ok();
    let refused = nat.node.enter(|| TcpStream::connect_timeout(&localhost(MAPPED), PATIENCE)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    for from in ["0.0.0.0", "127.0.0.7"] {
        let asking = nat.node.enter(|| UdpSocket::bind((from, 0)).unwrap());
        asking.set_read_timeout(Some(PATIENCE)).unwrap();
        asking.connect(localhost(MAPPED)).unwrap();
        asking.send(b"?").unwrap();
        let refused = asking.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "from {from}: {refused}");
    }
}

/// Earlier versions switched `route_localnet` on. It is reset with their old rules, and their pods' ports
/// stay.
#[test]
fn what_an_older_version_switched_on_is_switched_off() {
    let (nat, old, new) = (Nat::new(), Pod::new(), Pod::new());
    let eth0 = with_ports(&old, &[(MAPPED, "tcp", SERVED, "")]);
    let result = nat.local().add(&eth0).result();
    let _server = Server::start(&old, Transport::Tcp, SERVED);
    let record = std::fs::read_dir(nat.node.records()).unwrap().next().unwrap().unwrap().path();
    for said in [true, false] {
        let mut keys: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        keys.as_object_mut().unwrap().remove("localhost").expect("the record has the address");
        std::fs::write(&record, keys.to_string()).unwrap();
        nat.node.nft("flush ruleset");
        if said {
            nat.node.nft(
                "table inet vlan-bridge {\n set localnet {\n type ifname\n elements = { \"cni0\", \"cni1\" comment \"bridge\" }\n }\n}",
            );
        }
        for bridge in ["cni0", "cni1"] {
            nat.node.set_sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1");
        }
        nat.other().add(&new.eth0()).expect_ok();
        nat.other().del(&new.eth0()).expect_ok();
        let sysctl = |bridge| nat.node.sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"));
        assert_eq!((sysctl("cni0").as_str(), sysctl("cni1").as_str()), ("0", "1"), "said: {said}");
        nat.local().check(&eth0, &result).expect_ok();
        let seen: Option<IpAddr> = GATEWAY[0].parse().ok();
        assert_eq!(ask(&nat.node, Transport::Tcp, localhost(MAPPED)), seen, "{:?}", result.addresses());
    }
    nat.node.set_sysctl("net/ipv4/conf/cni1/route_localnet", "0");
    nat.local().del(&eth0).expect_ok();
    nat.assert_nothing_left();
}

/// No client waits for an answer that cannot come.
#[test]
fn a_port_of_another_address_does_not_lead_from_localhost() {
    let (nat, pod) = (Nat::new(), Pod::new());
    nat.local().add(&with_ports(&pod, &[(MAPPED, "tcp", SERVED, "192.0.2.2")])).expect_ok();
    let _server = Server::start(&pod, Transport::Tcp, SERVED);
    let connected =
        nat.node.enter(|| TcpStream::connect_timeout(&localhost(MAPPED), Duration::from_secs(20)));
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(
        nat.count("localhost-ports {\n\t\ttype inet_proto . inet_service : ipv4_addr\n\t\telements"),
        0
    );
}
