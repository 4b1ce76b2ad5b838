//! `vlan-bridgectl doctor` on a healthy node, and on the same node after each breakage that it checks.

use crate::doctor_breakages::{BREAKAGES, Breakage, NETPLAN, TRUNK_BREAKAGES};
use integration::{BondMode, BondedNode, Ctl, DataCenter, Finding, Pod, note, poll};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

pub(crate) const LIST: &str = "/etc/cni/net.d/10-vlan136.conflist";
pub(crate) const MODULES: &str = "/etc/modules-load.d/vlan-bridge.conf";

/// A node as `install` leaves it.
pub(crate) struct Scene<'a> {
    pub(crate) datacenter: &'a DataCenter,
    pub(crate) node: &'a BondedNode<'a>,
    pub(crate) ctl: Ctl<'a>,
}

impl<'a> Scene<'a> {
    fn new(datacenter: &'a DataCenter, node: &'a BondedNode<'a>, list: &Value) -> Scene<'a> {
        let ctl = Ctl::new(node);
        let mut template = list.clone();
        let ipam = template["plugins"][0]["ipam"].as_object_mut().unwrap();
        let slice = ipam.remove("slice").unwrap();
        ctl.write("/etc/10-vlan136.conflist", &template.to_string());
        let slice = slice.as_str().unwrap();
        ctl.run(&format!("install --network /etc/10-vlan136.conflist --slice {slice}")).expect_ok();
        ctl.write(MODULES, "# for pods\n8021q\nbonding\nbridge\nveth\n");
        Scene { datacenter, node, ctl }
    }

    pub(crate) fn list(&self) -> Value {
        serde_json::from_str(&self.ctl.read(LIST)).unwrap()
    }

    /// Every line is ok.
    #[track_caller]
    fn assert_healthy(&self, when: &str) -> Vec<Finding> {
        let findings = self.ctl.doctor("");
        let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != "ok").collect();
        assert!(wrong.is_empty() && findings.len() > 10, "{when}: {findings:#?}");
        findings
    }

    pub(crate) fn ip(&self, lines: &str) {
        self.node.ip(lines);
    }

    /// Runs the commands that the doctor prints for a check. The check must have this number of findings.
    #[track_caller]
    pub(crate) fn apply_fixes(&self, check: &str, count: usize) {
        let findings = self.ctl.doctor("--no-probe");
        let of_check: Vec<&Finding> = findings.iter().filter(|finding| finding.check == check).collect();
        assert_eq!(of_check.len(), count, "{findings:#?}");
        for line in of_check.iter().flat_map(|finding| &finding.fixes) {
            self.node.run(line).expect_ok();
        }
    }

    pub(crate) fn lease(&self, last: u8, holder: &str) {
        let path = self.node.data_dir().join("vlan136").join(format!("172.20.56.{last}"));
        fs::write(path, holder).unwrap();
    }

    pub(crate) fn free(&self, last: u8) {
        let _ = fs::remove_file(self.node.data_dir().join("vlan136").join(format!("172.20.56.{last}")));
    }
}

#[test]
fn a_node_is_healthy_until_it_is_broken_and_again_when_it_is_mended() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let mut list = node.list136();
    list["plugins"][0]["ipam"]["conflictDetection"] = json!("off");
    let scene = Scene::new(&datacenter, &node, &list);
    scene
        .ctl
        .run("install --network /etc/10-vlan136.conflist --slice 172.20.56.16/28 --cni-version 1.1.0")
        .expect_ok();
    let findings = scene.assert_healthy("before the first pod");
    let answers = |from: &str| format!("172.20.56.1 answers {from}");
    assert!(
        findings.iter().any(|finding| finding.seen.starts_with(&answers("bond0 with tag 136"))),
        "{findings:#?}"
    );

    let pod = Pod::new();
    node.client(&scene.list()).add(&pod.eth0()).expect_ok();
    let findings = scene.assert_healthy("with a pod");
    assert!(findings.iter().any(|finding| finding.seen.starts_with(&answers("br136"))), "{findings:#?}");

    break_and_fix(&scene, BREAKAGES);
    break_and_fix(&scene, NETPLAN);
    scene.assert_healthy("at the end");
}

/// Breaks a node in each way, checks the doctor's finding, and fixes the node.
fn break_and_fix(scene: &Scene<'_>, breakages: &[Breakage]) {
    for Breakage { harm, told: [verdict, check, seen, command], is_repaired, fix } in breakages {
        harm(scene);
        // Probing the network takes half a second.
        let words = if ["vlan", "duplicates"].contains(check) { "" } else { "--no-probe" };
        let mut findings = Vec::new();
        poll(Duration::from_secs(60), seen, || {
            findings = scene.ctl.doctor(words);
            findings.iter().any(|finding| finding.check == *check && finding.seen.contains(seen))
        });
        let is_it = |finding: &&Finding| finding.check == *check && finding.seen.contains(seen);
        let finding = findings.iter().find(is_it).unwrap();
        assert_eq!(finding.verdict, *verdict, "{finding:#?}");
        assert!(finding.fixes.iter().any(|line| line.contains(command)), "{finding:#?}");
        note(&format!("doctor: {verdict} {check}: {}", finding.seen));
        if *is_repaired {
            let repaired = scene.ctl.run("repair");
            assert!(repaired.ok(), "{seen}: {repaired}");
        }
        fix(scene);
    }
}

#[test]
fn the_commands_that_it_prints_cure_an_address_without_a_way_back() {
    let datacenter = DataCenter::new();
    let [node, other] = datacenter.nodes([BondMode::Lacp, BondMode::ActiveBackup]);
    let scene = Scene::new(&datacenter, &node, &node.list136());
    node.join(52);
    let pod = Pod::new();
    other.client(&other.list136()).add(&pod.eth0()).expect_ok();
    pod.wait_for("172.20.56.1");
    assert!(!pod.pings("10.52.0.11"), "the trap is not there");
    let findings = scene.ctl.doctor("");
    let trap = findings.iter().find(|finding| finding.check == "rp_filter").unwrap();
    assert_eq!(trap.verdict, "fail", "{findings:#?}");
    assert!(trap.seen.starts_with("10.52.0.11 on bond0.52"), "{trap:#?}");
    for line in &trap.fixes {
        node.run(line.split('#').next().unwrap()).expect_ok();
    }
    let findings = scene.ctl.doctor("");
    assert!(
        findings.iter().all(|finding| finding.check != "rp_filter" || finding.verdict == "ok"),
        "{findings:#?}"
    );
    pod.wait_for("10.52.0.11");
}

#[test]
fn a_trunk_is_asked_in_the_pods_vlan() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let scene = Scene::new(&datacenter, &node, &node.port_vlan_list136());
    let answered = |from: &str| {
        let findings = scene.ctl.doctor("");
        let expected = format!("172.20.56.1 answers {from}");
        assert!(findings.iter().any(|finding| finding.seen.starts_with(&expected)), "{findings:#?}");
    };
    answered("bond0 with tag 136");
    node.client(&scene.list()).add(&Pod::new().eth0()).expect_ok();
    answered("br0.136");
}

#[test]
fn a_trunk_beneath_services_filters_loosely_or_it_is_told() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let mut list = node.port_vlan_list136();
    list["plugins"][0]["serviceCIDRs"] = json!(["10.96.0.0/12"]);
    let scene = Scene::new(&datacenter, &node, &list);
    node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    let pod = Pod::new();
    node.client(&scene.list()).add(&pod.eth0()).expect_ok();
    let told = || !scene.ctl.failures().is_empty();
    assert!(!told(), "{:#?}", scene.ctl.doctor("--no-probe"));
    break_and_fix(&scene, TRUNK_BREAKAGES);
    assert!(!told(), "{:#?}", scene.ctl.doctor("--no-probe"));
}
