//! A node's slice of the subnet: pods get every address of it, and no other.

use crate::attach::attach;
use integration::{BondMode, DataCenter, Pod, Snapshot};
use std::collections::BTreeSet;

#[test]
fn a_slice_of_16_takes_16_pods_and_the_17th_leaves_nothing() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let list = node.list136();
    let pods: Vec<_> = (0..16).map(|_| attach(&node, &list)).collect();
    let got: BTreeSet<String> = pods.iter().map(|attached| attached.address.clone()).collect();
    let expected: BTreeSet<String> = (16..32).map(|last| format!("172.20.56.{last}")).collect();
    assert_eq!(got, expected);

    let (late, client) = (Pod::new(), node.client(&list));
    let (before, before_in_pod) = (Snapshot::of(&node), Snapshot::of(&late));
    let outcome = client.add(&late.eth0());
    let text = outcome.error_text();
    assert_eq!(outcome.error_code(), 11, "try again later: {outcome}");
    assert!(
        text.contains("172.20.56.16/28: 16 used") && text.contains("of 16"),
        "slice and count are told: {outcome}"
    );
    before.assert_unchanged(&node);
    before_in_pod.assert_unchanged(&late);
    assert_eq!(node.leases("vlan136").len(), 16);

    client.del(&pods[4].pod.eth0()).expect_ok();
    let outcome = client.add(&late.eth0()).expect_ok();
    assert_eq!(outcome.result().address(), pods[4].address, "the only free address");
    late.wait_for("172.20.56.1");
}
