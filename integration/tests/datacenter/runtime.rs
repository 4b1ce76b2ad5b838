//! A real container runtime on a node with a bond.

use integration::{BondMode, Capture, DataCenter, Podman, Snapshot, VLANS, greets, poll};
use std::time::Duration;

/// An emulated runtime takes its time.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn containers_of_podman_are_hosts_of_the_vlan() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let podman = Podman::new(&node);
    let (network, mut list) = ("vlan136", node.list136());
    list["cniVersion"] = "1.0.0".into();
    if let Some(ipam) = list["plugins"][0]["ipam"].as_object_mut() {
        ipam.remove("dataDir");
    }
    podman.set_lists(&[list]);
    podman.run_container("first", network, "").expect_ok();
    podman.podman("rm --force --time 0 first").expect_ok();
    let before = Snapshot::of(&node);

    let trunk = Capture::start(datacenter.tor_a(), "router");
    for name in ["one", "two"] {
        podman.run_container(name, network, "").expect_ok();
    }
    let leases = podman.leases(network);
    assert_eq!(leases.len(), 2, "{leases:?}");
    for ip in leases {
        poll(LIMIT, &format!("an answer from {ip}"), || greets(datacenter.router(), (ip, 80).into()));
        let (ip, vlan) = (ip.to_string(), VLANS[2].0);
        trunk.wait_for("its frames on the VLAN", |frame| frame.concerns(&ip) && frame.vlans == [vlan]);
    }
    podman.podman("rm --force --time 0 one two").expect_ok();
    assert!(podman.leases(network).is_empty());
    before.assert_unchanged(&node);
}
