//! The lists of `examples/` with an uplink, unchanged.

use crate::attach::attach;
use integration::{BondMode, BondedNode, Capture, DataCenter, Frame, Snapshot};
use serde_json::{Value, json};

const VLAN: &str = include_str!("../../../examples/vlan.conflist");
const TRUNK: &str = include_str!("../../../examples/trunk.conflist");

#[test]
fn pods_of_the_vlan_example_are_hosts_of_vlan_136() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let list = node.example(VLAN);
    attach_talk_and_leave(&datacenter, &node, &[Network { list: &list, vlan: 136, prefix: "172.20.56" }]);
}

/// A second list differs as `examples/README.md` says.
#[test]
fn pods_of_the_trunk_example_are_hosts_of_the_vlan_of_their_list() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let list = node.example(TRUNK);
    let mut second = list.clone();
    second["name"] = json!("trunk137");
    second["plugins"][0]["vlan"] = json!(137);
    let ipam = &mut second["plugins"][0]["ipam"];
    ipam["subnet"] = json!("172.20.57.0/24");
    ipam["slice"] = json!("172.20.57.16/28");
    ipam["gateway"] = json!("172.20.57.1");
    attach_talk_and_leave(
        &datacenter,
        &node,
        &[
            Network { list: &list, vlan: 136, prefix: "172.20.56" },
            Network { list: &second, vlan: 137, prefix: "172.20.57" },
        ],
    );
}

/// A list, and the addresses of its pods.
struct Network<'a> {
    list: &'a Value,
    vlan: u16,
    prefix: &'a str,
}

/// ADD of two pods in each network, their traffic, CHECK and DEL.
fn attach_talk_and_leave(datacenter: &DataCenter, node: &BondedNode, networks: &[Network]) {
    for Network { list, .. } in networks {
        // Bridge and sub-interface stay.
        let first = attach(node, list);
        node.client(list).del(&first.pod.eth0()).expect_ok();
    }
    let before = Snapshot::of(node);
    let trunk = Capture::start(datacenter.tor_a(), "router");
    let mut pods = Vec::new();
    for network in networks {
        pods.extend([(); 2].map(|()| (network, attach(node, network.list))));
    }
    let node_address = node.address(51);
    for (Network { prefix, .. }, attached) in &pods {
        assert!(attached.address.starts_with(prefix), "{}", attached.address);
        assert!(attached.pod.pings(&format!("{prefix}.1")), "{} -> router", attached.address);
        assert!(attached.pod.pings(&node_address), "{} -> its node", attached.address);
        for (_, other) in &pods {
            assert!(attached.pod.pings(&other.address), "{} -> {}", attached.address, other.address);
        }
    }
    let frames = trunk.frames();
    for (Network { vlan, prefix, .. }, attached) in &pods {
        let router = format!("{prefix}.1");
        let to_router = |frame: &&Frame| frame.concerns(&attached.address) && frame.concerns(&router);
        let tags: Vec<&Vec<u16>> = frames.iter().filter(to_router).map(|frame| &frame.vlans).collect();
        assert!(!tags.is_empty(), "no frame between {} and the router", attached.address);
        assert!(tags.iter().all(|tags| **tags == [*vlan]), "{}: {tags:?}", attached.address);
    }
    for (Network { list, .. }, attached) in &pods {
        node.client(list).check(&attached.pod.eth0()).expect_ok();
    }
    for (Network { list, .. }, attached) in &pods {
        node.client(list).del(&attached.pod.eth0()).expect_ok();
        assert!(!attached.pod.has_link("eth0"));
    }
    before.assert_unchanged(node);
    for Network { list, .. } in networks {
        assert!(node.leases(list["name"].as_str().unwrap()).is_empty());
    }
}
