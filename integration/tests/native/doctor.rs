//! `vlan-bridgectl` on a node in NAT mode: the doctor's findings about the packet filter, the ports in
//! status, and the rest after a forced removal.

pub(crate) mod agent;
pub(crate) mod bridge;
pub(crate) mod definitions;
pub(crate) mod detached;
pub(crate) mod filter;
pub(crate) mod lists;
pub(crate) mod runtimes;
pub(crate) mod vlan;

use integration::{AddResult, Ctl, Finding, Namespace, Node, Pod, Site, Snapshot, merge, not_tried, poll};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub(crate) const LIST: &str = "/etc/cni/net.d/10-local.conflist";

/// A node with one pod that has a host port. The installed plugin attached it.
pub(crate) fn with_pod(node: &Node, ctl: &Ctl<'_>) -> (Pod, Value) {
    ctl.run("install --name local --subnet 10.22.0.0/16").expect_ok();
    let mut list: Value = serde_json::from_str(&ctl.read(LIST)).unwrap();
    list["plugins"][0]["ipam"]["dataDir"] = json!(node.data_dir());
    ctl.write(LIST, &list.to_string());
    let pod = Pod::new();
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    node.client(&list).add(&pod.eth0().capabilities(ports)).expect_ok();
    (pod, list)
}

#[track_caller]
pub(crate) fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
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
    assert_eq!(find(&healthy, "nat").seen, "the rules of 1 pod are complete", "{healthy:#?}");
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

/// Runs the commands of a check on the node, and returns its new line.
#[track_caller]
pub(crate) fn after_fixes(
    node: &Namespace,
    ctl: &Ctl<'_>,
    check: &str,
    [verdict, seen]: [&str; 2],
) -> String {
    let findings = ctl.doctor("--no-probe");
    let finding = find(&findings, check);
    assert_eq!(finding.verdict, verdict, "{findings:#?}");
    assert!(finding.seen.contains(seen), "{findings:#?}");
    for line in &finding.fixes {
        node.run(line).expect_ok();
    }
    let findings = ctl.doctor("--no-probe");
    let left = findings.iter().find(|finding| finding.check == check);
    left.map_or("ok".to_owned(), |finding| finding.verdict.clone())
}

/// A node on two networks with one pod that is bridged to one of them. The installed plugin attached it with
/// these keys.
pub(crate) fn with_bridged_pod(site: &Site, ctl: &Ctl<'_>, keys: &Value) -> (Pod, Value, AddResult) {
    site.give_node_its_own_network();
    ctl.run(INSTALL_FLAT).expect_ok();
    let path = "/etc/cni/net.d/10-flat.conflist";
    let mut list: Value = serde_json::from_str(&ctl.read(path)).unwrap();
    list["plugins"][0]["ipam"]["dataDir"] = json!(site.node.data_dir());
    merge(&mut list["plugins"][0], keys);
    ctl.write(path, &list.to_string());
    let pod = Pod::new();
    let result = site.node.client(&list).add(&pod.eth0()).result();
    (pod, list, result)
}

#[test]
fn what_a_bridged_pod_has_lost_is_named_with_what_mends_it() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    let (pod, list, result) = with_bridged_pod(&site, &ctl, &json!({}));
    let (client, bridge) = (node.client(&list), list["plugins"][0]["bridge"].as_str().unwrap().to_owned());
    let address = result.address();
    let healthy = ctl.doctor("--no-probe");
    assert!(healthy.iter().all(|finding| finding.check != "hostaccess"), "{healthy:#?}");
    let cases = [
        (
            format!("route del {address} proto 117"),
            format!("the node's route to {address} by {bridge} is missing"),
        ),
        (format!("neigh del {address} dev {bridge}"), format!("the node's neighbour entry for {address} on")),
    ];
    for (harm, seen) in cases {
        node.ip(&harm);
        assert_eq!(after_fixes(node, &ctl, "hostaccess", ["fail", &seen]), "ok");
        client.check(&pod.eth0()).expect_ok();
    }
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        return not_tried("no br_netfilter in this kernel: its policy");
    }
    node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    node.nft(
        "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}",
    );
    let findings = ctl.doctor("--no-probe");
    let finding = find(&findings, "forward");
    assert_eq!(finding.verdict, "fail", "{findings:#?}");
    assert!(
        finding.seen.contains(&format!("table ip filter drops what bridge {bridge} forwards")),
        "{findings:#?}"
    );
    // An operator's own rule may accept these packets, and here it does.
    node.run("iptables -A FORWARD -m physdev --physdev-is-bridged -j ACCEPT").expect_ok();
    assert!(pod.pings(Site::GATEWAY));
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "warn");
    let checked = client.check(&pod.eth0()).expect_ok();
    assert!(checked.stderr.contains("unless another rule in that table accepts it"), "{checked}");
    client.add(&Pod::new().eth0()).expect_ok();
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "ok");
}

/// Without a guard, only the record of services has the pod's MAC.
#[test]
fn the_way_to_a_pod_without_a_guard_and_to_its_services_is_mended_too() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    let keys = json!({"guard": false, "serviceCIDRs": ["10.96.0.0/12"]});
    let (_pod, list, result) = with_bridged_pod(&site, &ctl, &keys);
    let (bridge, address) = (list["plugins"][0]["bridge"].as_str().unwrap(), result.address());
    node.ip(&format!("neigh del {address} dev {bridge}"));
    assert_eq!(after_fixes(node, &ctl, "hostaccess", ["fail", "is missing"]), "ok");
    node.set_sysctl("net/ipv4/ip_forward", "0");
    let seen = format!("net.ipv4.ip_forward is 0, and {bridge} has services or host ports");
    assert_eq!(after_fixes(node, &ctl, "settings", ["fail", &seen]), "ok");
    node.set_sysctl(&format!("net/ipv4/conf/{bridge}/log_martians"), "1");
    let seen = format!("net.ipv4.conf.{bridge}.log_martians is on");
    assert_eq!(after_fixes(node, &ctl, "settings", ["warn", &seen]), "ok");
}

#[test]
fn forwarding_of_ipv6_is_judged_where_pods_have_it() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (pod, mut list) = with_pod(&node, &ctl);
    node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    assert_eq!(find(&ctl.doctor("--no-probe"), "settings").verdict, "ok");
    node.client(&list).del(&pod.eth0()).expect_ok();
    let ipam = &mut list["plugins"][0]["ipam"];
    ipam.as_object_mut().unwrap().remove("subnet");
    ipam["ranges"] = json!([[{"subnet": "10.22.0.0/16"}], [{"subnet": "fd00:22::/64"}]]);
    ctl.write(LIST, &list.to_string());
    node.set_sysctl("net/ipv4/ip_forward", "0");
    assert_eq!(find(&ctl.doctor("--no-probe"), "settings").verdict, "ok", "an ADD will switch it on");
    node.client(&list).add(&pod.eth0()).expect_ok();
    assert_eq!(find(&ctl.doctor("--no-probe"), "settings").verdict, "ok");
    node.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    let seen = "net.ipv6.conf.all.forwarding is 0, and cni0 is a gateway";
    assert_eq!(after_fixes(&node, &ctl, "settings", ["fail", seen]), "ok");
}

#[test]
fn status_tells_host_ports_and_force_takes_rules_and_leases_along() {
    let node = Node::new("node");
    // The sysctls that an ADD switches on and leaves on.
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
fn uninstall_takes_the_rules_of_pods_that_died_without_a_word() {
    let node = Node::new("node");
    node.set_sysctl("net/ipv4/ip_forward", "1");
    node.run("iptables -P FORWARD DROP").expect_ok();
    let ctl = Ctl::new(&node);
    let before = Snapshot::of(&node);
    let (pod, _) = with_pod(&node, &ctl);
    drop(pod);
    let has_veth = || !node.run("ip -o link show type veth").stdout.is_empty();
    poll(Duration::from_secs(10), "the dead pod's veth is gone", || !has_veth());
    ctl.run("uninstall").expect_ok();
    before.assert_unchanged(&node);
    assert!(!node.records().exists(), "its record is left");
}

#[test]
fn status_counts_as_resting_what_rests_by_the_list() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (pod, mut list) = with_pod(&node, &ctl);
    node.client(&list).del(&pod.eth0()).expect_ok();
    for (cooldown, resting) in [(3600, 1), (0, 0)] {
        list["plugins"][0]["ipam"]["cooldown"] = json!(cooldown);
        ctl.write(LIST, &list.to_string());
        let told = ctl.run("status -o json").expect_ok().json();
        assert_eq!(told["networks"][0]["usage"][0]["cooling"], resting, "{told:#}");
    }
}

/// A router, and a node whose `nic0` leads to it.
fn flat() -> (Namespace, Node) {
    let (router, node) = (Namespace::new("router"), Node::new("node"));
    router.ip(&format!(
        "link add port type veth peer name nic0 netns {}\nlink set port up\naddr add 172.20.56.1/24 dev port",
        node.name()
    ));
    node.ip("link set nic0 up");
    (router, node)
}

const INSTALL_FLAT: &str =
    "install --name flat --master nic0 --subnet 172.20.56.0/24 --slice 172.20.56.16/28";

#[test]
fn an_address_in_quarantine_is_named_with_the_machine_that_has_it() {
    let (router, node) = flat();
    let ctl = Ctl::new(&node);
    ctl.run(INSTALL_FLAT).expect_ok();
    let mut list: Value = serde_json::from_str(&ctl.read("/etc/cni/net.d/10-flat.conflist")).unwrap();
    list["plugins"][0]["ipam"]["dataDir"] = json!(node.data_dir());
    ctl.write("/etc/cni/net.d/10-flat.conflist", &list.to_string());
    router.ip("addr add 172.20.56.16/24 dev port");
    // This stays, because an address whose pod is gone is a finding too.
    let pod = Pod::new();
    node.client(&list).add(&pod.eth0()).expect_ok();
    let findings = ctl.doctor("--no-probe");
    let mac = router.mac("port");
    let quarantined = find(&findings, "ipam");
    assert_eq!(quarantined.seen, format!("172.20.56.16 is quarantined: {mac} uses it"), "{findings:#?}");
    assert_eq!(quarantined.verdict, "warn");
}

#[test]
fn a_plugin_of_another_version_tells_of_an_upgrade_that_was_left_half_done() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run("install --name local --subnet 10.22.0.0/16").expect_ok();
    assert_eq!(find(&ctl.doctor(""), "plugins").verdict, "ok");
    // The copy is renamed over it, because a running program cannot be overwritten.
    ctl.write("/opt/cni/bin/other", "#!/bin/sh\necho vlan-bridge-ipam 9.9.9\n");
    fs::set_permissions(ctl.path("/opt/cni/bin/other"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(ctl.path("/opt/cni/bin/other"), ctl.path("/opt/cni/bin/vlan-bridge-ipam")).unwrap();
    let findings = ctl.doctor("");
    let plugins = find(&findings, "plugins");
    assert_eq!(plugins.verdict, "warn", "{plugins:#?}");
    assert!(
        plugins.seen.starts_with("/opt/cni/bin/vlan-bridge-ipam is 9.9.9, vlan-bridgectl "),
        "{plugins:#?}"
    );
    assert!(plugins.fixes.iter().any(|line| line == "vlan-bridgectl install"), "{plugins:#?}");
}

#[test]
fn an_untagged_uplink_is_asked_too() {
    let (router, node) = flat();
    let ctl = Ctl::new(&node);
    ctl.run(INSTALL_FLAT).expect_ok();
    let findings = ctl.doctor("");
    assert!(find(&findings, "vlan").seen.starts_with("172.20.56.1 answers nic0"), "{findings:#?}");
    router.ip("addr del 172.20.56.1/24 dev port");
    let findings = ctl.doctor("");
    assert_eq!(find(&findings, "vlan").verdict, "fail", "{findings:#?}");
    assert!(ctl.run("doctor").stdout.contains("fix: allow the VLAN"));
    node.ip("link del nic0");
    let findings = ctl.doctor("");
    assert!(find(&findings, "uplink").seen.contains("there is no interface nic0"), "{findings:#?}");
}
