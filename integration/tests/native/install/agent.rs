//! `vlan-bridgectl install --agent`: the systemd unit and the program that it runs.

use crate::repair::{Attached, with_attached_pods};
use integration::{Agent, Ctl, Node, product, run};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const UNIT: &str = "/etc/systemd/system/vlan-bridge-agent.service";
const TOOL: &str = "/usr/local/sbin/vlan-bridgectl";
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/vlan-bridge-agent.service";
const START: &str = "then run  systemctl daemon-reload\nthen run  systemctl enable --now vlan-bridge-agent\n";
const RESTART: &str = "then run  systemctl restart vlan-bridge-agent\n";

/// A node that systemd runs.
fn booted(node: &Node) -> Ctl<'_> {
    let ctl = Ctl::new(node);
    fs::create_dir_all(ctl.path("/run/systemd/system")).unwrap();
    ctl
}

#[test]
fn the_unit_and_its_program_are_installed_once_and_uninstalled() {
    let node = Node::new("node");
    let ctl = booted(&node);
    let told = ctl.run("install --agent").expect_ok();
    assert!(told.stdout.contains(&format!("new       {TOOL}: 0.1.0\nnew       {UNIT}: ")), "{told}");
    assert!(told.stdout.ends_with(START), "{told}");
    assert_eq!(fs::read(ctl.path(TOOL)).unwrap(), fs::read(product().join("vlan-bridgectl")).unwrap());
    assert_eq!(fs::metadata(ctl.path(TOOL)).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(ctl.path(UNIT)).unwrap().permissions().mode() & 0o777, 0o644);

    let told = ctl.run("install --agent").expect_ok();
    assert!(told.stdout.contains(&format!("unchanged {TOOL}: ")), "{told}");
    assert!(told.stdout.ends_with(START), "{told}");

    // Another release runs until it is restarted.
    ctl.write(UNIT, "[Service]\nExecStart=/bin/true\n");
    let told = ctl.run("install --agent").expect_ok();
    assert!(told.stdout.contains(&format!("replaced  {UNIT}: ")), "{told}");
    assert!(told.stdout.ends_with(&format!("{START}{RESTART}")), "{told}");
    let told = ctl.run("install --agent -o json").expect_ok().json();
    assert_eq!(told["agent"]["files"][1], json!({"path": UNIT, "state": "unchanged"}));

    // As `systemctl enable` does.
    fs::create_dir_all(ctl.path(ENABLED).parent().unwrap()).unwrap();
    symlink(UNIT, ctl.path(ENABLED)).unwrap();
    // An install without the agent, for example of another network, leaves it there.
    ctl.run("install").expect_ok();
    assert!(ctl.has(UNIT) && ctl.has(TOOL));
    ctl.run("uninstall").expect_ok();
    for path in [UNIT, TOOL, ENABLED] {
        assert!(fs::symlink_metadata(ctl.path(path)).is_err(), "{path}");
    }
}

#[test]
fn without_systemd_nothing_is_installed() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    super::refused(&ctl.run("install --agent"), &["systemd does not run here (/run/systemd/system does not"]);
    assert!(!ctl.has(UNIT) && !ctl.has(TOOL) && !ctl.has("/opt/cni/bin/vlan-bridge"));
    assert!(!ctl.has("/var/lib/vlan-bridge"));
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_confined() {
    /// systemd calls more than 5.0 `MEDIUM`, and an unconfined service has 9.6.
    const LIMIT: f64 = 3.0;
    let node = Node::new("node");
    let ctl = booted(&node);
    ctl.run("install --agent").expect_ok();
    let analyze = |line: &str| {
        let program = Path::new("/usr/bin/systemd-analyze");
        run(&mut ctl.command_of(program, &format!("{line} {UNIT}"))).expect_ok()
    };
    // It also checks that the program exists.
    let told = analyze("verify --man=no");
    assert!(!told.stderr.contains("vlan-bridge"), "{told}");
    let told = analyze("security --offline=yes --no-pager");
    let level =
        told.stdout.split("Overall exposure level for ").nth(1).and_then(|rest| rest.split(' ').nth(1));
    let level: f64 = level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("{told}"));
    assert!(level <= LIMIT, "{told}");
}

#[test]
fn the_capabilities_of_the_unit_are_enough() {
    with_attached_pods(|Attached { ctl, scene, complaint, .. }| {
        fs::create_dir_all(ctl.path("/run/systemd/system")).unwrap();
        ctl.run("install --agent").expect_ok();
        let unit = ctl.read(UNIT);
        let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let bounding = bounding.to_lowercase().replace("cap_", "+").replace(' ', ",");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let line = format!("--no-new-privs --bounding-set -all,{bounding} {start}");
        let agent = Agent::start_as(ctl, ctl.command_of(Path::new("setpriv"), &line));
        // One each of what needs a capability: rules, an interface, a sysctl.
        scene.site.node.nft("flush ruleset");
        agent.await_report("restored the pods' guards");
        scene.site.node.ip(&format!("link set {} nomaster", scene.ports[0]));
        agent.await_report("it was in no bridge");
        scene.site.node.set_sysctl("net/ipv4/ip_forward", "0");
        agent.await_report("forwarding of IPv4 was off");
        assert!(!agent.reports().contains("not restored"), "{}", agent.reports());
        assert_eq!(complaint(), None);
        let told = ctl.run("uninstall");
        super::refused(&told, &["the agent runs on this node", "systemctl disable --now vlan-bridge-agent"]);
        assert!(ctl.has(UNIT) && ctl.has(TOOL));
    });
}
