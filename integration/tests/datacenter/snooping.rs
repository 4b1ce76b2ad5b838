//! Multicast snooping on a trunk's bridge: a querier in one VLAN must not affect the other VLANs.

use crate::attach::attach;
use crate::paths::{dual_stack, vlan137};
use integration::{BondMode, BondedNode, DataCenter, Pod, poll};
use std::net::Ipv6Addr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// A general query of Multicast Listener Discovery (RFC 2710 section 3), in a whole frame.
fn query() -> Vec<u8> {
    let from: Ipv6Addr = "fe80::1".parse().unwrap();
    let to: Ipv6Addr = "ff02::1".parse().unwrap();
    // The query asks for answers within a millisecond, about every group.
    let mut message = vec![130, 0, 0, 0, 0, 1, 0, 0];
    message.extend([0; 16]);
    let summed = [&from.octets()[..], &to.octets(), &[0, 0, 0, 24, 0, 0, 0, 58], &message].concat();
    let sum: u32 = summed.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) as u16).wrapping_add((sum >> 16) as u16);
    message[2..4].copy_from_slice(&folded.to_be_bytes());
    let mac = [2, 0, 0, 0, 0, 0x99];
    let header = [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 32, 0, 1]].concat();
    // Hop-by-hop: router alert (RFC 2711).
    [&header[..], &from.octets(), &to.octets(), &[58, 0, 5, 2, 0, 0, 1, 0], &message].concat()
}

fn snoops(node: &BondedNode) -> bool {
    node.ip_json("-details link show dev br0")[0]["linkinfo"]["info_data"]["mcast_snooping"] == 1
}

/// Whether a neighbour is found again after its entry was deleted.
fn finds(pod: &Pod, neighbour: &str) -> bool {
    pod.ip("neigh flush dev eth0");
    pod.pings(neighbour)
}

/// A pod repeats its first reports for some seconds (RFC 3810 section 6.1). If the bridge learned from them,
/// it would hide the pruning for minutes.
fn forget_groups(node: &BondedNode) {
    let shown = node.run("bridge -json mdb show dev br0").expect_ok().json();
    let bridges = shown.as_array().into_iter().flatten();
    for entry in bridges.flat_map(|bridge| bridge["mdb"].as_array().into_iter().flatten()) {
        let (port, group) = (entry["port"].as_str().unwrap(), entry["grp"].as_str().unwrap());
        let vid = entry["vid"].as_u64().map_or(String::new(), |vid| format!(" vid {vid}"));
        // One may expire meanwhile.
        node.run(&format!("bridge mdb del dev br0 port {port} grp {group}{vid}"));
    }
}

#[test]
fn a_querier_in_one_vlan_keeps_no_neighbour_solicitation_from_another() {
    let datacenter = DataCenter::new();
    let nodes = datacenter.nodes([BondMode::Lacp, BondMode::ActiveBackup]);
    let lists = nodes.each_ref().map(|node| vlan137(node, true));
    let [here, there] = [0, 1].map(|index| attach(&nodes[index], &lists[index]));
    let address = there.pod.ip_json("-6 addr show dev eth0 scope global")[0]["addr_info"][0]["local"]
        .as_str()
        .unwrap()
        .to_owned();
    here.pod.wait_for(&address);
    assert!(!snoops(&nodes[0]) && !snoops(&nodes[1]));
    let asked = || datacenter.router().send_frame("trunk.136", &query());
    asked();
    assert!(finds(&here.pod, &address));

    // The state that an earlier release left. VLAN 136 needs a pod on that bridge, or the query would not
    // arrive.
    let other = attach(&nodes[1], &dual_stack(&nodes[1], true));
    nodes[1].ip("link set br0 type bridge mcast_snooping 1 mcast_startup_query_count 0");
    poll(LIMIT, "that the bridge prunes: else nothing is shown", || {
        forget_groups(&nodes[1]);
        asked();
        !finds(&here.pod, &address)
    });
    let third = Pod::new();
    nodes[1].client(&lists[1]).add(&third.eth0()).expect_ok();
    assert!(!snoops(&nodes[1]));
    asked();
    assert!(finds(&here.pod, &address));
    drop(other);
}
