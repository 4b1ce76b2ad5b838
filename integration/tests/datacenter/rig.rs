//! The test network itself, because every other test relies on it. Here pods are attached by hand.

use integration::{BondMode, BondedNode, Capture, DataCenter, Member, Pings, Pod, Snapshot, note, poll};
use std::time::Duration;

/// The bridge and interface that the plugin should make for VLAN 136.
fn bridge136(node: &BondedNode) {
    node.ip("link add link bond0 name bond0.136 type vlan id 136\n\
         link add br136 type bridge forward_delay 0\n\
         link set bond0.136 master br136\n\
         link set bond0.136 up\nlink set br136 up");
}

/// A pod on it.
fn pod(node: &BondedNode, address: &str) -> Pod {
    let pod = Pod::new();
    let port = format!("v{}", address.replace('.', ""));
    node.ip(&format!(
        "link add {port} type veth peer name eth0 netns {}\n\
         link set {port} master br136\nlink set {port} up",
        pod.name()
    ));
    pod.ip(&format!("link set eth0 up\naddr add {address}/24 dev eth0\nroute add default via 172.20.56.1"));
    pod
}

#[test]
fn every_bond_mode_carries_pods_to_the_router_and_to_each_other() {
    let datacenter = DataCenter::new();
    let nodes = datacenter.nodes(BondMode::ALL);
    let pods = [1_u8, 2, 3].map(|number| {
        let node = &nodes[usize::from(number) - 1];
        bridge136(node);
        let first = 16 * u16::from(number);
        [0, 1].map(|more| pod(node, &format!("172.20.56.{}", first + more)))
    });
    for [one, other] in &pods {
        one.wait_for("172.20.56.1");
        other.wait_for("172.20.56.1");
    }
    for from in pods.iter().flatten() {
        for number in [1, 2, 3] {
            assert!(from.pings(&format!("172.20.56.{}", 16 * number)));
            assert!(from.pings(&format!("172.20.56.{}", 16 * number + 1)));
        }
    }
}

#[test]
fn frames_on_a_trunk_carry_their_tag_once() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    bridge136(&node);
    let pod = pod(&node, "172.20.56.16");
    let trunk = Capture::start(datacenter.tor_a(), "router");
    let other_vlan = Capture::start(datacenter.router(), "trunk.137");
    pod.wait_for("172.20.56.1");
    let frames = trunk.frames();
    let of_pod: Vec<_> = frames.iter().filter(|frame| frame.concerns("172.20.56.16")).collect();
    assert!(of_pod.len() >= 4, "ARP and echo, both ways: {of_pod:?}");
    assert!(of_pod.iter().all(|frame| frame.vlans == [136]), "{of_pod:?}");
    assert!(!other_vlan.frames().iter().any(|frame| frame.concerns("172.20.56.16")));
}

#[test]
fn a_cut_cable_is_noticed_and_survived() {
    let datacenter = DataCenter::new();
    for mode in BondMode::ALL {
        let node = datacenter.node(mode);
        for member in [Member::First, Member::Second] {
            let pings = Pings::start(&node, "10.51.0.1", 100, Duration::from_millis(20));
            node.cut(member);
            poll(Duration::from_secs(10), "the bond has one member", || node.active_members() == 1);
            let (sent, received) = pings.finish();
            note(&format!("{}: {member:?} cut, {} of {sent} lost", mode.name(), sent - received));
            node.wait_for("10.51.0.1");
            node.restore(member);
            poll(Duration::from_secs(10), "the bond has both members", || node.active_members() == 2);
        }
    }
}

#[test]
fn a_snapshot_sees_what_is_added_and_nothing_else() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let before = Snapshot::of(&node);
    node.wait_for("10.51.0.1");
    before.assert_unchanged(&node);
    node.ip("link add link bond0 name bond0.137 type vlan id 137");
    let difference = before.difference(&Snapshot::of(&node));
    assert!(difference.iter().any(|line| line.starts_with("+ link ifname=\"bond0.137\"")), "{difference:?}");
}
