//! `vlan-bridgectl topology` on a bonded node, with a sub-interface and with a trunk.

use crate::attach::attach;
use integration::{BondMode, Ctl, DataCenter, Member, poll};
use std::time::Duration;

#[test]
fn a_bond_is_drawn_with_its_members_and_a_trunk_with_its_vlans() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let ctl = Ctl::new(&node);
    let list = node.list136();
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
    let attached = attach(&node, &list);
    let drawn = ctl.run("topology").expect_ok().stdout;
    for part in [
        ",- nic0  active, 10000 Mbps full, up, MTU 1500\n|- nic1  backup, 10000 Mbps full, up, MTU 1500\n",
        "bond0  active-backup, up, MTU 1500\n",
        "`- bond0.136  VLAN 136, up, MTU 1500\n   `- br136  network vlan136, up, MTU 1500\n      `- veth",
        &attached.address,
    ] {
        assert!(drawn.contains(part), "{part} is not in\n{drawn}");
    }
    assert!(drawn.lines().all(|line| line.len() <= 80), "{drawn}");
    node.cut(Member::First);
    poll(Duration::from_secs(20), "the other member", || {
        let drawn = ctl.run("topology").expect_ok().stdout;
        drawn.contains(",- nic0  down, no carrier") && drawn.contains("|- nic1  active, ")
    });
    let dot = ctl.run("topology -o dot").expect_ok().stdout;
    assert!(dot.contains("\"nic0\" -> \"bond0\" [label=\"down\", style=dashed];"), "{dot}");
}

#[test]
fn the_ports_of_a_trunk_are_drawn_with_their_vlans() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let ctl = Ctl::new(&node);
    let list = node.port_vlan_list136();
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
    let _attached = attach(&node, &list);
    let drawn = ctl.run("topology").expect_ok().stdout;
    for part in [
        ",- nic0  active, 10000 Mbps full, up",
        "bond0  802.3ad, up",
        "`- br0  VLAN 136, network vlan136",
        "- br0.136  VLAN 136, the node's side\n",
        "  VLAN 136 untagged, 172.20.56.16, ",
    ] {
        assert!(drawn.contains(part), "{part} is not in\n{drawn}");
    }
}
