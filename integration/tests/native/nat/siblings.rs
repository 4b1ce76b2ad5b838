//! One container on several networks with the same host ports, as podman does. A port leads to the network
//! that had it first.

use crate::nat::{GATEWAY, MACHINE, NODE, Nat, with_ports};
use integration::{Attachment, Ctl, Plugin, Pod, Server, Transport, ask, at};
use serde_json::json;
use std::net::IpAddr;

const PORTS: [(u16, &str, u16, &str); 3] =
    [(8080, "tcp", 80, ""), (8080, "udp", 80, ""), (8081, "tcp", 80, "192.0.2.1")];
/// The gateway of network `other`.
const OTHER_GATEWAY: &str = "10.33.0.1";

fn interface(pod: &Pod, ifname: &str) -> Attachment {
    Attachment { ifname: ifname.to_owned(), ..with_ports(pod, &PORTS) }
}

/// The network `other` for a pod that has a default route.
fn other(nat: &Nat) -> Plugin<'_> {
    nat.node.plugin(&nat.list("other", "cni1", &json!({"isDefaultGateway": false, "isGateway": true})))
}

/// Panics unless every port leads through the network of this gateway. The pod then sees the gateway's
/// address.
#[track_caller]
fn assert_leads_by(nat: &Nat, gateway: &str) {
    let expected: Option<IpAddr> = gateway.parse().ok();
    for (over, to) in [
        (Transport::Tcp, ([192, 0, 2, 1], 8080)),
        (Transport::Tcp, ([127, 0, 0, 1], 8080)),
        (Transport::Udp, ([192, 0, 2, 1], 8080)),
        (Transport::Tcp, ([192, 0, 2, 1], 8081)),
    ] {
        assert_eq!(ask(&nat.node, over, to.into()), expected, "{over:?} {to:?}\n{}", nat.rules());
    }
}

#[track_caller]
fn assert_refused_to_strangers(nat: &Nat, holder: &Pod) {
    let outcome = nat.other().add(&with_ports(&Pod::new(), &PORTS));
    assert_eq!(outcome.error_code(), 104, "{outcome}");
    assert!(outcome.error_text().contains(&format!("held by container {}", holder.id())), "{outcome}");
}

#[test]
fn the_second_network_gets_the_ports_when_the_first_goes() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let (first, second) = (interface(&pod, "eth0"), interface(&pod, "eth1"));
    let _servers = [Transport::Tcp, Transport::Udp].map(|over| Server::start(&pod, over, 80));
    let result = nat.local().add(&first).result();
    let second_result = other(&nat).add(&second).result();
    let check = || {
        nat.local().check(&first, &result).expect_ok();
        other(&nat).check(&second, &second_result).expect_ok();
    };
    check();
    assert_leads_by(&nat, GATEWAY[0]);
    let outside = at(NODE[0], 8080);
    assert_eq!(ask(&nat.machine, Transport::Tcp, outside), MACHINE[0].parse().ok());
    assert_refused_to_strangers(&nat, &pod);

    nat.node.nft("flush ruleset");
    Ctl::new(&nat.node).run("repair").expect_ok();
    check();
    assert_leads_by(&nat, GATEWAY[0]);
    assert_refused_to_strangers(&nat, &pod);

    nat.local().del(&first).expect_ok();
    other(&nat).check(&second, &second_result).expect_ok();
    assert_leads_by(&nat, OTHER_GATEWAY);
    assert_refused_to_strangers(&nat, &pod);

    // The first network comes back, and is now the second.
    nat.local().add(&first).expect_ok();
    assert_leads_by(&nat, OTHER_GATEWAY);
    other(&nat).del(&second).expect_ok();
    assert_leads_by(&nat, GATEWAY[0]);
    nat.local().del(&first).expect_ok();
    nat.assert_nothing_left();
}

#[test]
fn the_first_keeps_the_ports_when_the_second_goes() {
    let (nat, pod, stranger) = (Nat::new(), Pod::new(), Pod::new());
    let (first, second) = (interface(&pod, "eth0"), interface(&pod, "eth1"));
    let _servers = [Transport::Tcp, Transport::Udp].map(|over| Server::start(&pod, over, 80));
    nat.local().add(&first).expect_ok();
    other(&nat).add(&second).expect_ok();
    other(&nat).del(&second).expect_ok();
    assert_leads_by(&nat, GATEWAY[0]);
    nat.local().del(&first).expect_ok();
    nat.local().add(&with_ports(&stranger, &PORTS)).expect_ok();
    nat.local().del(&stranger.eth0()).expect_ok();
    nat.assert_nothing_left();
}

/// After the first network, the ports move to the next one each time. GC counts as a DEL, and an attachment
/// whose veth is gone does not keep a port.
#[test]
fn of_three_each_gets_the_ports_in_turn() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let [eth0, eth1, eth2] = ["eth0", "eth1", "eth2"].map(|ifname| interface(&pod, ifname));
    let _servers = [Transport::Tcp, Transport::Udp].map(|over| Server::start(&pod, over, 80));
    nat.local().add(&eth0).expect_ok();
    for next in [&eth1, &eth2] {
        other(&nat).add(next).expect_ok();
    }
    let held = |ifname: &str| nat.count(&format!("{ifname} {}", pod.id()));
    nat.local().with("cni.dev/valid-attachments", json!([])).gc().expect_ok();
    assert_eq!(held("eth0"), 0, "{}", nat.rules());
    assert!(held("eth1") > held("eth2"), "{}", nat.rules());
    assert_leads_by(&nat, OTHER_GATEWAY);
    let (of_holder, of_next) = (held("eth1"), held("eth2"));
    pod.ip("link del eth1");
    assert_refused_to_strangers(&nat, &pod);
    assert_eq!((held("eth1"), held("eth2")), (0, of_holder), "{of_next} before\n{}", nat.rules());
    assert_leads_by(&nat, OTHER_GATEWAY);
    for attachment in [&eth1, &eth2] {
        other(&nat).del(attachment).expect_ok();
    }
    nat.local().del(&eth0).expect_ok();
    nat.assert_nothing_left();
}

/// Two containers of two runtimes may have the same ID.
#[test]
fn another_container_of_the_same_id_is_a_stranger() {
    let (nat, pod, namesake) = (Nat::new(), Pod::new(), Pod::new());
    nat.local().add(&with_ports(&pod, &PORTS)).expect_ok();
    let eth1 = Attachment { id: pod.id().to_owned(), ..interface(&namesake, "eth1") };
    let outcome = nat.other().add(&eth1);
    assert_eq!(outcome.error_code(), 104, "{outcome}");
    nat.local().del(&pod.eth0()).expect_ok();
    nat.assert_nothing_left();
}
