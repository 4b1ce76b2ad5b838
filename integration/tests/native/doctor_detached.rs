//! The doctor on pods whose interfaces are gone.

use crate::doctor::{LIST, find};
use integration::{Ctl, Node, Pod};
use serde_json::{Value, json};

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
