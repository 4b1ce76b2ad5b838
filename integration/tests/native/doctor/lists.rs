//! The doctor and `status` on lists and plugins: in other folders, missing, and torn. Also on other things
//! that a new node may lack, such as permission to read.

use crate::doctor::{LIST, find};
use integration::{Ctl, Node, Scratch, not_tried, product, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const INSTALL: &str = "install --name local --subnet 10.22.0.0/16";

#[test]
fn folders_that_install_was_given_are_looked_into() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run(&format!("{INSTALL} --bin-dir /var/lib/bin --conf-dir /etc/lists")).expect_ok();
    let findings = ctl.doctor("--no-probe");
    assert_eq!(find(&findings, "lists").seen, "/etc/lists/10-local.conflist", "{findings:#?}");
    assert_eq!(find(&findings, "plugins").verdict, "ok", "{findings:#?}");
    assert_eq!(find(&findings, "status").verdict, "ok", "{findings:#?}");
    let told = ctl.run("status").expect_ok();
    assert!(told.stdout.starts_with("NETWORK  local: bridge cni0"), "{told}");
    // A flag has precedence over the folder that install noted.
    let findings = ctl.doctor("--no-probe --conf-dir /etc/cni/net.d");
    assert_eq!(
        find(&findings, "lists").seen,
        "no network list with vlan-bridge in /etc/cni/net.d",
        "{findings:#?}"
    );
    ctl.program("containerd", "containerd github.com/containerd/containerd v2.1.9 0.0");
    let findings = ctl.doctor("--no-probe");
    for (check, path) in [("lists", "/etc/lists/10-local.conflist"), ("plugins", "/var/lib/bin/vlan-bridge")]
    {
        let finding = find(&findings, check);
        assert_eq!(finding.seen, format!("{path} is in no directory of containerd"), "{findings:#?}");
        assert_eq!(finding.verdict, "warn", "{findings:#?}");
    }
    fs::remove_file(ctl.path("/bin/containerd")).unwrap();
    fs::remove_file(ctl.path("/var/lib/bin/vlan-bridge")).unwrap();
    let findings = ctl.doctor("--no-probe");
    let missing = find(&findings, "plugins");
    assert_eq!(missing.seen, "vlan-bridge is not in /var/lib/bin", "{findings:#?}");
    assert!(missing.fixes[0].starts_with("vlan-bridgectl install --bin-dir /var/lib/bin,"), "{findings:#?}");
}

#[test]
fn a_node_without_lists_is_told_how_to_get_one() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let findings = ctl.doctor("--no-probe");
    let lists = find(&findings, "lists");
    assert_eq!(lists.seen, "no network list with vlan-bridge in /etc/cni/net.d", "{findings:#?}");
    assert!(
        lists.fixes[0].starts_with("vlan-bridgectl install --network FILE --slice CIDR"),
        "{findings:#?}"
    );
    assert!(find(&findings, "rp_filter").seen.starts_with("no default route"), "{findings:#?}");
    let told = ctl.run("doctor");
    for text in [", 1 failure\n", "no definitions of interfaces\n"] {
        assert!(told.stdout.contains(text), "{told}");
    }
    let status = ctl.run("status").expect_ok();
    let told = "no network list with vlan-bridge in /etc/cni/net.d\nAGENT    none runs\n";
    assert_eq!(status.stdout, told, "{status}");
}

#[test]
fn a_torn_list_is_named_as_such_with_the_one_before_it() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run(INSTALL).expect_ok();
    ctl.write(LIST, "{ name");
    let torn = || ctl.doctor("--no-probe").into_iter().find(|finding| finding.check == "lists").unwrap();
    let finding = torn();
    assert!(finding.seen.starts_with(&format!("{LIST}: not JSON: ")), "{finding:#?}");
    assert_eq!(finding.fixes, [format!("rm {LIST}")]);
    fs::remove_file(ctl.path(LIST)).unwrap();
    for subnet in ["10.22.0.0/16", "10.23.0.0/16"] {
        ctl.run(&format!("install --name local --subnet {subnet}")).expect_ok();
    }
    ctl.write(LIST, "{ name");
    let finding = torn();
    let command = format!("cp /var/lib/vlan-bridge/previous/ours/10-local.conflist {LIST}   #");
    assert!(finding.fixes[0].starts_with(&command), "{finding:#?}");
}

/// Without permission to look, nothing is known, and no module is reported as missing.
#[test]
fn who_may_not_look_is_told_to_be_root() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run(INSTALL).expect_ok();
    let mut command = node.command("setpriv");
    command.args(["--bounding-set", "-net_admin"]).arg(product().join("vlan-bridgectl"));
    command.args(["doctor", "--no-probe", "--conf-dir"]).arg(ctl.path("/etc/cni/net.d"));
    let told = run(&mut command);
    let nat = told.stdout.split_once("warn  nat ").map(|(_, rest)| rest).unwrap_or_else(|| panic!("{told}"));
    assert!(nat.lines().nth(2).is_some_and(|line| line.ends_with("fix: run as root")), "{told}");
    assert!(!told.stdout.contains("modprobe -a nf_tables"), "{told}");
    assert!(!told.stdout.contains("no chain drops pods' packets"), "{told}");
}

/// Nor does any verb pretend that there is nothing.
#[test]
fn a_user_who_is_not_root_is_told_so_first() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run(INSTALL).expect_ok();
    // Where every user can execute it.
    let folder = Scratch::new("tool");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tool = folder.path().join("vlan-bridgectl");
    // By a process of its own: a file that another test's fork has open for writing cannot be executed.
    run(Command::new("cp").arg(product().join("vlan-bridgectl")).arg(&tool)).expect_ok();
    let ids = "--reuid 1000 --regid 1000 --clear-groups";
    for (line, effect) in [
        ("install --name other --subnet 10.23.0.0/16", "nothing was changed"),
        ("uninstall", "nothing was changed"),
        ("repair", "nothing was changed"),
        ("status", "what follows is incomplete"),
        ("topology", "what follows is incomplete"),
        ("doctor --no-probe", "what follows is incomplete"),
    ] {
        let told =
            run(&mut ctl.command_of(Path::new("setpriv"), &format!("{ids} {} {line}", tool.display())));
        assert_eq!(told.status.code(), Some(1), "{told}");
        let verb = line.split(' ').next().unwrap_or_default();
        let first = told.stderr.lines().next().unwrap_or_default();
        let expected = format!("vlan-bridgectl: {verb} needs root, and runs as user 1000: {effect}");
        assert!(first.starts_with(&expected), "{told}");
        assert_eq!(told.stdout.is_empty(), effect == "nothing was changed", "{told}");
    }
    assert!(ctl.has(LIST) && !ctl.has("/etc/cni/net.d/10-other.conflist"));
}

#[test]
fn a_kernel_without_vlans_is_blamed_and_not_the_switch() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    node.ip("link add nic0 type veth peer name port\nlink set nic0 up\nlink set port up");
    ctl.run("install --name v --master nic0 --vlan 136 --subnet 172.20.56.0/24 --gateway 172.20.56.1 --slice 172.20.56.16/28")
        .expect_ok();
    let findings = ctl.doctor("");
    let modules = find(&findings, "modules");
    assert!(!modules.seen.contains("veth not loaded"), "there are veths: {findings:#?}");
    if ["/proc/modules", "/proc/net/vlan"].iter().any(|path| Path::new(path).exists()) {
        assert_eq!(find(&findings, "vlan").verdict, "fail", "{findings:#?}");
        return not_tried("this kernel has 8021q, or may load it: one without");
    }
    assert_eq!(modules.verdict, "fail", "{findings:#?}");
    assert!(modules.seen.starts_with("this kernel has no 8021q,"), "{findings:#?}");
    assert_eq!(find(&findings, "vlan").verdict, "warn", "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.check != "status"), "{findings:#?}");
}
