//! `vlan-bridgectl` on a node in NAT mode: what the doctor says of the packet filter, what status tells of ports, and what a
//! forced removal leaves.

use integration::{Ctl, Finding, Namespace, Node, Pod, Snapshot};
use serde_json::json;

const LIST: &str = "/etc/cni/net.d/10-local.conflist";

/// A node with one pod that has a host port, made by what `install` put there.
fn with_pod(node: &Node, ctl: &Ctl<'_>) -> (Pod, serde_json::Value) {
    ctl.run("install --name local --subnet 10.22.0.0/16").expect_ok();
    let mut list: serde_json::Value = serde_json::from_str(&ctl.read(LIST)).unwrap();
    list["plugins"][0]["ipam"]["dataDir"] = json!(node.data_dir());
    ctl.write(LIST, &list.to_string());
    let pod = Pod::new();
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    node.client(&list).add(&pod.eth0().capabilities(ports)).expect_ok();
    (pod, list)
}

#[track_caller]
fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.check == check)
        .unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

#[test]
fn rules_that_a_firewall_took_are_missed() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (pod, list) = with_pod(&node, &ctl);
    let healthy = ctl.doctor("");
    assert_eq!(find(&healthy, "nat").seen, "the rules of 1 pods are there", "{healthy:#?}");
    assert!(healthy.iter().all(|finding| finding.verdict != "fail"), "{healthy:#?}");
    node.run("nft flush ruleset").expect_ok();
    let findings = ctl.doctor("");
    assert_eq!(find(&findings, "nat").verdict, "fail", "{findings:#?}");
    node.client(&list).add(&Pod::new().eth0()).expect_ok();
    assert_eq!(find(&ctl.doctor(""), "nat").verdict, "ok");
    node.set_sysctl("net/ipv4/ip_forward", "0");
    let findings = ctl.doctor("");
    assert!(
        find(&findings, "settings").seen.contains("net.ipv4.ip_forward is 0, and cni0 is a gateway"),
        "{findings:#?}"
    );
    drop(pod);
}

#[test]
fn status_tells_host_ports_and_force_takes_rules_and_leases_along() {
    let node = Node::new("node");
    // What an ADD switches on and leaves on.
    node.set_sysctl("net/ipv4/ip_forward", "1");
    let ctl = Ctl::new(&node);
    let before = Snapshot::of(&node);
    let (pod, _) = with_pod(&node, &ctl);
    let told = ctl.run("status").expect_ok().stdout;
    let line = told.lines().find(|line| line.starts_with("10.22.0.2 ")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.ends_with("ports 8080->80/tcp"), "{told}");
    assert_eq!(ctl.run("status -o json").expect_ok().json()["pods"][0]["hostPorts"][0]["hostPort"], 8080);
    ctl.run("uninstall --force").expect_ok();
    before.assert_unchanged(&node);
    assert!(!pod.has_link("eth0") && node.leases("local").is_empty());
}

#[test]
fn an_untagged_uplink_is_asked_too() {
    let (router, node) = (Namespace::new("router"), Node::new("node"));
    router.ip(&format!(
        "link add port type veth peer name nic0 netns {}\nlink set port up\naddr add 172.20.56.1/24 dev port",
        node.name()
    ));
    node.ip("link set nic0 up");
    let ctl = Ctl::new(&node);
    let line = "install --name flat --master nic0 --subnet 172.20.56.0/24 --slice 172.20.56.16/28";
    ctl.run(line).expect_ok();
    let findings = ctl.doctor("");
    assert!(find(&findings, "vlan").seen.starts_with("172.20.56.1 answers nic0"), "{findings:#?}");
    router.ip("addr del 172.20.56.1/24 dev port");
    let findings = ctl.doctor("");
    assert_eq!(find(&findings, "vlan").verdict, "fail", "{findings:#?}");
    assert!(ctl.run("doctor").stdout.contains("mend: allow the VLAN"));
    node.ip("link del nic0");
    let findings = ctl.doctor("");
    assert!(find(&findings, "uplink").seen.contains("there is no interface nic0"), "{findings:#?}");
}
