//! A node that does not fit the configuration. ADD names the obstacle before it touches anything.

use crate::input::{Row, Untouched};
use integration::Site;
use serde_json::{Value, json};

/// The commands on the node, and a row of the table.
type Found = (&'static str, fn(&Site), Value, &'static [&'static str]);

#[test]
fn what_was_found_is_named() {
    let rows: [Found; 12] = [
        ("no master", |_| {}, json!({"uplink": {"master": "bond0"}}), &["uplink.master", "bond0"]),
        (
            "a master that is a bridge",
            |site| site.node.ip("link add br0 type bridge"),
            json!({"uplink": {"master": "br0"}}),
            &["br0", "bridge"],
        ),
        ("an MTU above the master's", |_| {}, json!({"mtu": 1501}), &["mtu", "1501", "1500", "nic0"]),
        (
            "a bridge's name that a NIC has",
            |site| site.node.ip("link add br136 type veth peer name x"),
            json!({}),
            &["br136", "veth"],
        ),
        ("a bridge's name that lo has", |_| {}, json!({"bridge": "lo"}), &["lo", "bridge"]),
        (
            "a port of another bridge",
            |site| site.node.ip("link add br0 type bridge\nlink set nic0 master br0"),
            json!({}),
            &["nic0", "br0"],
        ),
        (
            "an address",
            |site| site.node.ip("addr add 172.20.56.9/24 dev nic0"),
            json!({}),
            &["nic0", "172.20.56.9"],
        ),
        (
            "an address of v6",
            |site| site.node.ip("addr add 2001:db8::9/64 dev nic0 nodad"),
            json!({}),
            &["nic0", "2001:db8::9"],
        ),
        (
            "the default route",
            |site| site.node.ip("route add default dev nic0"),
            json!({}),
            &["nic0", "default route"],
        ),
        (
            "an existing bridge does not make it better",
            |site| site.node.ip("link add br136 type bridge\naddr add 172.20.56.9/24 dev nic0"),
            json!({}),
            &["nic0", "172.20.56.9"],
        ),
        (
            "a sub-interface's name that a NIC has",
            |site| site.node.ip("link add nic0.136 type veth peer name x"),
            json!({"uplink": {"vlan": 136}}),
            &["nic0.136", "veth"],
        ),
        (
            "a bridge that does not filter",
            |site| site.node.ip("link add br136 type bridge"),
            json!({"vlan": 7}),
            &["br136", "filter"],
        ),
    ];
    for (what, prepare, patch, parts) in rows {
        let row: Row = (patch, 7, parts);
        let untouched = Untouched::with(prepare);
        eprintln!("{what}");
        untouched.refuses("vlan-bridge", &[row]);
    }
}

#[test]
fn an_interface_that_the_pod_has_is_not_made_again() {
    let untouched = Untouched::new();
    let pod = integration::Pod::new();
    pod.ip("link add eth0 type bridge\nlink add eth1 type veth peer name eth2");
    let before = integration::Snapshot::of(&pod);
    for ifname in ["eth0", "eth1", "lo"] {
        let plugin = untouched.site.node.plugin(&untouched.site.list());
        let call = plugin.call("ADD", &pod.interface(ifname));
        let complaint = untouched.complaint(ifname, &call, 100, &["CNI_IFNAME", ifname]);
        assert!(complaint.is_none(), "{}", complaint.unwrap_or_default());
        before.assert_unchanged(&pod);
    }
}
