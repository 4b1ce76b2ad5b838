//! The doctor on pods whose interfaces are gone.

use crate::doctor::{LIST, find};
use integration::{Ctl, Node, Pod, poll};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn pods_whose_interfaces_are_gone_are_one_line_with_their_count() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run("install --name local --subnet 10.22.0.0/16").expect_ok();
    let mut list: Value = serde_json::from_str(&ctl.read(LIST)).unwrap();
    list["plugins"][0]["ipam"]["dataDir"] = json!(node.data_dir());
    ctl.write(LIST, &list.to_string());
    let (client, pods) = (node.client(&list), [(); 5].map(|()| Pod::new()));
    for pod in &pods {
        client.add(&pod.eth0()).expect_ok();
    }
    assert_eq!(find(&ctl.doctor("--no-probe"), "ipam").verdict, "ok");
    let veths = node.run("ip -br link show type veth").stdout;
    for veth in veths.lines().filter_map(|line| line.split(['@', ' ']).next()) {
        node.ip(&format!("link del {veth}"));
    }
    let findings = ctl.doctor("--no-probe");
    let told: Vec<_> = findings.iter().filter(|finding| finding.check == "ipam").collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_ne!(told[0].verdict, "ok", "status calls them detached: {told:#?}");
    assert!(
        told[0].seen.starts_with("local: 5 addresses without an interface here: 10.22.0.2 ("),
        "{told:#?}"
    );
    assert!(told[0].seen.ends_with(", 2 more"), "{told:#?}");
}

/// Works with any IPAM plugin, because the attachment's records have the addresses.
#[test]
fn pods_of_another_ipam_whose_interfaces_are_gone_are_named() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let conf = json!({"type": "vlan-bridge", "bridge": "cni0", "ipam": {"type": "static",
        "addresses": [{"address": "10.22.0.2/24"}]}});
    let list = node.list("fixed", &[conf]);
    ctl.run("install --cni-version 1.1.0").expect_ok();
    ctl.write("/etc/cni/net.d/10-fixed.conflist", &list.to_string());
    let (client, pod, next) = (node.client(&list), Pod::new(), Pod::new());
    client.add(&pod.eth0()).expect_ok();
    let ports = || {
        let findings = ctl.doctor("--no-probe");
        find(&findings, "ports").clone()
    };
    assert_eq!(ports().verdict, "ok");
    let veths = node.run("ip -br link show type veth").stdout;
    node.ip(&format!("link del {}", veths.split(['@', ' ']).next().unwrap()));
    let seen = format!("1 pod without an interface here: {} eth0 of fixed", pod.id());
    assert_eq!((ports().verdict.as_str(), ports().seen), ("fail", seen.clone()));
    // The next call keeps the finding.
    client.add(&next.eth0()).expect_ok();
    assert_eq!((ports().verdict.as_str(), ports().seen), ("fail", seen));
    client.del(&pod.eth0()).expect_ok();
    assert_eq!(ports().verdict, "ok");
    // A record of a deleted pod is not a finding.
    drop(next);
    poll(Duration::from_secs(10), "the veth goes with the pod", || {
        node.run("ip -br link show type veth").stdout.is_empty()
    });
    let findings = ctl.doctor("--no-probe");
    assert!(findings.iter().all(|finding| finding.check != "ports"), "{findings:#?}");
}
