//! The findings of doctor and `install` about runtimes: a runtime with other folders than its configuration,
//! a podman without CNI, and a runtime without the plugin `loopback`.

use crate::doctor::find;
use crate::install::runtimes::{INSTALL, VERSION, with_loopback};
use integration::{Ctl, Node, Pod};
use serde_json::{Value, json};
use std::fs;

#[test]
fn attached_pods_weigh_more_than_configurations() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    with_loopback(&ctl, "/opt/cni/bin");
    // Leases in the default folder, where the tool looks for them.
    let mut list = node.list(
        "local",
        &[json!({"type": "vlan-bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/16"}})],
    );
    list["plugins"][0]["ipam"]["dataDir"] = json!(ctl.path("/var/lib/cni/networks"));
    let pod = Pod::new();
    let named = pod.eth0().args("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0");
    node.client(&list).add(&named).expect_ok();
    ctl.program("containerd", VERSION);
    let status = ctl.run("status").expect_ok();
    let line = status.stdout.lines().find(|line| line.starts_with("10.22.0.2 "));
    assert!(line.is_some_and(|line| line.ends_with(" shop/web-0")), "{status}");
    let findings = ctl.doctor("--no-probe");
    let lists = find(&findings, "lists");
    assert_eq!(lists.verdict, "warn", "{findings:#?}");
    assert_eq!(lists.seen, "no network list with vlan-bridge in /etc/cni/net.d, and 1 pod is attached");
    ctl.write("/etc/lists/10-local.conflist", &list.to_string());
    let told = ctl.run("doctor --no-probe --conf-dir /etc/lists --bin-dir /var/lib/bin");
    assert!(told.stdout.contains("vlan-bridge is not in /var/lib/bin, and 1 pod is attached"), "{told}");
    for words in ["no pod", "every ADD"] {
        assert!(!told.stdout.contains(words), "{told}");
    }
    for name in ["vlan-bridge", "vlan-bridge-ipam"] {
        fs::create_dir_all(ctl.path("/var/lib/bin")).unwrap();
        fs::copy(integration::product().join(name), ctl.path("/var/lib/bin").join(name)).unwrap();
    }
    let findings = || ctl.doctor("--no-probe --conf-dir /etc/lists --bin-dir /var/lib/bin");
    // More is known about a folder that has our list.
    let ipam = ctl.path("/var/lib/bin/vlan-bridge-ipam");
    fs::rename(&ipam, ipam.with_extension("kept")).unwrap();
    let found = findings();
    let missing = found.iter().find(|finding| finding.seen == "vlan-bridge-ipam is not in /var/lib/bin");
    assert_eq!(missing.map(|finding| finding.verdict.as_str()), Some("fail"), "{found:#?}");
    fs::rename(ipam.with_extension("kept"), &ipam).unwrap();
    let findings = findings();
    assert!(findings.iter().all(|finding| finding.verdict != "fail"), "{findings:#?}");
    assert_eq!(find(&findings, "status").verdict, "ok", "{findings:#?}");
}

#[test]
fn a_podman_with_netavark_is_told_to_see_no_list() {
    for (version, config, sees) in [
        ("5.4.0", "", false),
        ("4.9.3", "[network]\nnetwork_backend = 'netavark'\n", false),
        ("4.3.1", "[network]\nnetwork_backend = 'cni'\n", true),
    ] {
        let node = Node::new("node");
        let ctl = Ctl::new(&node);
        ctl.program("podman", &format!("podman version {version}"));
        ctl.write("/etc/containers/containers.conf", config);
        let told = ctl.run(INSTALL).expect_ok();
        let words = format!("podman {version} uses netavark");
        assert!(told.stdout.contains(&format!("found     podman {version}")), "{told}");
        assert_eq!(told.stderr.contains(&format!("warning: {words}")), !sees, "{told}");
        let findings = ctl.doctor("--no-probe");
        let runtime = find(&findings, "runtimes");
        assert_eq!((runtime.verdict == "ok", runtime.seen == words), (sees, !sees), "{findings:#?}");
        // It does not lower the list's version for other runtimes.
        ctl.program("containerd", VERSION);
        ctl.run(INSTALL).expect_ok();
        let list: Value = serde_json::from_str(&ctl.read("/etc/cni/net.d/10-local.conflist")).unwrap();
        assert_eq!(list["cniVersion"], if sees { "1.0.0" } else { "1.1.0" });
    }
}

/// The program is asked if no configuration exists.
#[test]
fn a_podman_4_is_asked_for_its_backend() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    for (backend, sees) in [("netavark", false), ("cni", true)] {
        ctl.program("podman", "podman version 4.9.3");
        let path = "bin/podman";
        let answer = json!({"host": {"networkBackend": backend}});
        ctl.write(
            path,
            &format!("#!/bin/sh\n[ \"$1\" = info ] && exec echo '{answer}'\necho podman version 4.9.3\n"),
        );
        let told = ctl.run(INSTALL).expect_ok();
        assert_eq!(told.stderr.contains("podman 4.9.3 uses netavark"), !sees, "{told}");
        // Its choice at its first start has precedence over its default.
        ctl.write("/var/lib/containers/storage/defaultNetworkBackend", if sees { "netavark" } else { "cni" });
        let told = ctl.run(INSTALL).expect_ok();
        assert_eq!(told.stderr.contains("podman 4.9.3 uses netavark"), sees, "{told}");
        fs::remove_file(ctl.path("/var/lib/containers/storage/defaultNetworkBackend")).unwrap();
    }
}

#[test]
fn a_runtime_without_its_loopback_plugin_fails() {
    for (name, version, config, needs) in [
        ("containerd", VERSION, "version = 3\n", true),
        ("containerd", "containerd c v1.7.2 0", "version = 2\n", true),
        ("containerd", "containerd c v1.7.2 0", "disabled_plugins = ['cri']\n", false),
        (
            "containerd",
            VERSION,
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nuse_internal_loopback = true\n",
            false,
        ),
        ("crio", "crio version 1.18.4", "", true),
        // CRI-O itself sets lo up since 1.19.
        ("crio", "crio version 1.31.2", "", false),
    ] {
        let node = Node::new("node");
        let ctl = Ctl::new(&node);
        ctl.program(name, version);
        let path = if name == "crio" { "/etc/crio/crio.conf" } else { "/etc/containerd/config.toml" };
        ctl.write(path, config);
        let verdict = || find(&ctl.doctor("--no-probe"), "runtimes").clone();
        let finding = verdict();
        assert_eq!(finding.verdict, if needs { "fail" } else { "ok" }, "{finding:#?}");
        if needs {
            assert!(finding.seen.ends_with("has no plugin loopback in /opt/cni/bin"), "{finding:#?}");
            assert!(finding.fixes[0].contains("containernetworking-plugins"), "{finding:#?}");
            with_loopback(&ctl, "/opt/cni/bin");
            assert_eq!(verdict().verdict, "ok");
        }
    }
}
