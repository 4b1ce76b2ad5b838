//! Frames between pods, nodes and the router, in every bond mode and in both topologies.

use crate::attach::{Attached, attach};
use integration::{BondMode, BondedNode, Capture, DataCenter, Frame};
use serde_json::Value;

#[test]
fn pods_on_a_sub_interface_talk_to_the_router_and_to_each_other() {
    pods_talk(|node| node.list136());
}

#[test]
fn pods_on_port_vlans_talk_to_the_router_and_to_each_other() {
    pods_talk(|node| node.port_vlan_list136());
}

fn pods_talk(list: fn(&BondedNode) -> Value) {
    let datacenter = DataCenter::new();
    let nodes = datacenter.nodes(BondMode::ALL);
    let trunks = ["router", "peer"].map(|port| Capture::start(datacenter.tor_a(), port));
    let other_vlans = ["trunk.51", "trunk.137"].map(|link| Capture::start(datacenter.router(), link));
    let pods: Vec<Attached> =
        nodes.iter().flat_map(|node| [attach(node, &list(node)), attach(node, &list(node))]).collect();
    for Attached { pod, address } in &pods {
        let routes = pod.ip_json("route show default");
        assert_eq!(routes[0]["gateway"], "172.20.56.1", "{routes}");
        assert!(pod.pings("172.20.56.1"), "{address} -> router");
        for other in &pods {
            assert!(pod.pings(&other.address), "{address} -> {}", other.address);
        }
    }
    let of_pods = |frame: &Frame| pods.iter().any(|attached| frame.concerns(&attached.address));
    for trunk in trunks {
        let frames: Vec<Frame> = trunk.frames().into_iter().filter(of_pods).collect();
        assert!(frames.len() >= 2 * pods.len(), "only {} frames of pods on a trunk", frames.len());
        assert!(frames.iter().all(|frame| frame.vlans == [136]), "{frames:?}");
    }
    for other in other_vlans {
        let strays: Vec<Frame> = other.frames().into_iter().filter(of_pods).collect();
        assert!(strays.is_empty(), "{strays:?}");
    }
}
