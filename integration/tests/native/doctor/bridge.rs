//! The doctor's findings about bridges of attached pods.

use crate::doctor::{after_fixes, find, with_bridged_pod};
use integration::{Ctl, Pod, Site};
use serde_json::json;

#[test]
fn a_bridge_that_is_gone_beneath_attached_pods_is_a_failure() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let (pod, list, _) = with_bridged_pod(&site, &ctl, &json!({"bridge": "br136"}));
    assert_eq!(find(&ctl.doctor("--no-probe"), "bridge").verdict, "ok");
    site.node.ip("link del br136");
    let findings = ctl.doctor("--no-probe");
    let gone = find(&findings, "bridge");
    assert_eq!(gone.verdict, "fail", "{findings:#?}");
    assert_eq!(gone.seen, "br136 of network flat is missing, and 1 pod attached");
    assert_eq!(gone.fixes, ["vlan-bridgectl repair"]);
    ctl.run("repair").expect_ok();
    assert_eq!(find(&ctl.doctor("--no-probe"), "bridge").verdict, "ok");
    site.node.client(&list).del(&pod.eth0()).expect_ok();
    site.node.ip("link del br136");
    let findings = ctl.doctor("--no-probe");
    assert_eq!(find(&findings, "bridge").seen, "br136 of network flat is created with the first pod");
}

/// The kernel listens and learns for at most half a minute each.
const SPANNING_TREE: &str = "link set br136 type bridge forward_delay 3000 stp_state 1";

#[test]
fn spanning_tree_on_a_bridge_of_ours_is_named_and_its_cure_mends_it() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    let (pod, ..) = with_bridged_pod(&site, &ctl, &json!({"bridge": "br136"}));
    node.ip(SPANNING_TREE);
    // Existing ports go on.
    assert!(pod.pings(Site::GATEWAY));
    assert_eq!(after_fixes(node, &ctl, "bridge", ["warn", "br136 runs spanning tree"]), "ok");
    node.ip(SPANNING_TREE);
    node.ip("link set nic0 nomaster\nlink set nic0 master br136");
    assert!(!pod.pings(Site::GATEWAY));
    assert_eq!(
        after_fixes(node, &ctl, "bridge", ["fail", "nic0 is a port of br136 and not forwarding"]),
        "ok"
    );
    assert!(pod.pings(Site::GATEWAY));
    let second = Pod::new();
    let list = serde_json::from_str(&ctl.read("/etc/cni/net.d/10-flat.conflist")).unwrap();
    node.client(&list).add(&second.eth0()).expect_ok();
    assert!(second.pings(Site::GATEWAY));
    site.router.ip("link set port down");
    let findings = ctl.doctor("--no-probe");
    assert_eq!(find(&findings, "bridge").seen, "nic0 has no carrier", "{findings:#?}");
}
