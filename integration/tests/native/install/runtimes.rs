//! `vlan-bridgectl` looks at the running runtimes. A runtime with another configuration has other folders,
//! and so has a distribution's own runtime.

use crate::doctor::find;
use integration::{Ctl, Finding, Node};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

pub(crate) const VERSION: &str = "containerd github.com/containerd/containerd v2.1.9 0.0";
pub(crate) const INSTALL: &str = "install --name local --subnet 10.22.0.0/16";

/// Paths and contents.
type Files<'a> = &'a [(&'a str, &'a str)];

/// A configuration of containerd: version 2 of it, or 3.
fn configuration(version: u8, bin_dir: &str, conf_dir: &str) -> String {
    match version {
        2 => format!(
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '{bin_dir}'\nconf_dir = '{conf_dir}'\n"
        ),
        _ => format!(
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['{bin_dir}']\nconf_dir = '{conf_dir}'\n"
        ),
    }
}

pub(crate) fn with_loopback(ctl: &Ctl<'_>, dir: &str) {
    let path = format!("{dir}/loopback");
    ctl.write(&path, "#!/bin/sh\n");
    fs::set_permissions(ctl.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Install writes only to these folders, the doctor has no finding, and uninstall removes everything.
#[track_caller]
fn goes_to(ctl: &Ctl<'_>, shown: &str, bin_dir: &str, conf_dir: &str) {
    with_loopback(ctl, bin_dir);
    let told = ctl.run(INSTALL).expect_ok();
    assert!(told.stdout.contains(&format!("found     {shown}")), "{told}");
    let (plugin, list) = (format!("{bin_dir}/vlan-bridge"), format!("{conf_dir}/10-local.conflist"));
    assert!(ctl.has(&plugin) && ctl.has(&list), "{told}");
    let findings = ctl.doctor("--no-probe");
    assert_eq!(find(&findings, "lists").seen, list, "{findings:#?}");
    assert_eq!(find(&findings, "plugins").verdict, "ok", "{findings:#?}");
    let (shown, _) = shown.split_once(',').unwrap_or((shown, ""));
    let is_it = |finding: &&Finding| finding.check == "runtimes" && finding.seen.starts_with(shown);
    let runtime = findings.iter().find(is_it).unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!(runtime.verdict, "ok", "{findings:#?}");
    assert!(runtime.seen.contains(bin_dir) && runtime.seen.contains(conf_dir), "{findings:#?}");
    assert!(ctl.run("status").expect_ok().stdout.starts_with("NETWORK  local"), "{told}");
    ctl.run("uninstall").expect_ok();
    assert!(!ctl.has(&plugin) && !ctl.has(&list));
    let usual = [("/opt/cni/bin", bin_dir), ("/etc/cni/net.d", conf_dir)];
    for (usual, _) in usual.into_iter().filter(|(usual, dir)| usual != dir) {
        assert!(!ctl.has(usual), "{usual}: {told}");
    }
}

#[test]
fn a_containerd_that_runs_says_where_its_configuration_is() {
    for (version, words) in [
        (2, "-c /etc/own/c.toml"),
        (2, "--config /etc/own/c.toml -l debug"),
        (3, "--log-level info --config=/etc/own/c.toml"),
    ] {
        let node = Node::new("node");
        let ctl = Ctl::new(&node);
        // A file that no runtime reads.
        ctl.write("/etc/containerd/config.toml", &configuration(3, "/var/lib/other/bin", "/etc/other"));
        ctl.write("/etc/own/c.toml", &configuration(version, "/var/lib/own/bin", "/etc/own/net.d"));
        let _containerd = ctl.running("containerd", VERSION, words);
        goes_to(&ctl, "containerd 2.1.9", "/var/lib/own/bin", "/etc/own/net.d");
        assert!(!ctl.has("/etc/other"), "{words}");
    }
}

#[test]
fn nomads_agent_says_where_its_configuration_is_and_who_asks_it_does_not() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let client = "client {\n  cni_path = \"/var/lib/own/bin\"\n  cni_config_dir = \"/etc/own/net.d\"\n}\n";
    ctl.write("/etc/own/client.hcl", client);
    let _agent = ctl.running("nomad", "Nomad v1.9.3", "agent -config=/etc/own");
    let _asks = ctl.start_as(0, "nomad", "monitor");
    goes_to(&ctl, "nomad 1.9.3", "/var/lib/own/bin", "/etc/own/net.d");
    assert!(!ctl.has("/opt/cni/config"));
}

#[test]
fn imports_of_a_configuration_go_before_it() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let main = configuration(2, "/var/lib/first", "/etc/own/net.d");
    ctl.write(
        "/etc/own/c.toml",
        &main.replacen('\n', "\nimports = ['conf.d/*.toml', '/etc/own/none.toml']\n", 1),
    );
    ctl.write("/etc/own/conf.d/10-cni.toml", &configuration(2, "/var/lib/own/bin", "/etc/own/net.d"));
    ctl.write("/etc/own/conf.d/20-cni.toml.bak", "no [toml");
    let _containerd = ctl.running("containerd", VERSION, "--config /etc/own/c.toml");
    goes_to(&ctl, "containerd 2.1.9", "/var/lib/own/bin", "/etc/own/net.d");
}

#[test]
fn crio_is_asked_for_its_files_folders_and_options() {
    let text = "[crio.network]\nplugin_dirs = ['/var/lib/own/bin']\nnetwork_dir = '/etc/own/net.d'\n";
    for (file, words) in [
        ("/etc/own/crio.conf", "--config /etc/own/crio.conf"),
        ("/etc/own/d/10-cni.conf", "--config-dir=/etc/own/d"),
        ("/etc/crio/crio.conf.d/10-cni.conf", ""),
        ("/etc/crio/crio.conf", "--cni-plugin-dir /var/lib/own/bin --cni-config-dir=/etc/own/net.d"),
    ] {
        let node = Node::new("node");
        let ctl = Ctl::new(&node);
        let is_told = words.starts_with("--cni");
        ctl.write(file, if is_told { "[crio.network]\nnetwork_dir = '/etc/other'\n" } else { text });
        let _crio = ctl.running("crio", "crio version 1.31.2", words);
        goes_to(&ctl, "crio 1.31.2", "/var/lib/own/bin", "/etc/own/net.d");
        assert!(!ctl.has("/etc/other"), "{words}");
    }
}

/// A user other than root may give a process any name.
#[test]
fn a_process_of_somebody_else_decides_nothing() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write("/etc/own/c.toml", &configuration(2, "/var/lib/own/bin", "/etc/own/net.d"));
    let other = Node::new("other");
    let elsewhere = Ctl::new(&other);
    // For networks, this is the runtime of another machine.
    let _containerd = elsewhere.running(
        "containerd",
        VERSION,
        &format!("--config {}", ctl.path("/etc/own/c.toml").display()),
    );
    let told = ctl.run(INSTALL).expect_ok();
    assert!(!told.stdout.contains("found") && ctl.has("/opt/cni/bin/vlan-bridge"), "{told}");
    ctl.run("uninstall").expect_ok();
    let own = "--config /etc/own/c.toml";
    let users = ctl.running_as(1999, "containerd", VERSION, own);
    ctl.run(INSTALL).expect_ok();
    assert!(ctl.has("/opt/cni/bin/vlan-bridge") && !ctl.has("/var/lib/own"));
    drop(users);
    // A setuid program does not count either, because its caller chooses the arguments.
    fs::copy("/bin/sh", ctl.path("/bin/set")).unwrap();
    fs::rename(ctl.path("/bin/set"), ctl.path("/bin/containerd")).unwrap();
    fs::set_permissions(ctl.path("/bin/containerd"), fs::Permissions::from_mode(0o4755)).unwrap();
    let set = ctl.start_as(1999, "containerd", &format!("-p -s words {own}"));
    let owner = fs::metadata(format!("/proc/{}", set.pid())).unwrap().uid();
    assert_eq!(owner, 0, "this is not what is to be tried");
    let told = ctl.run(INSTALL).expect_ok();
    assert!(!told.stdout.contains("found") && !ctl.has("/var/lib/own"), "{told}");
}

#[test]
fn distributions_are_found_by_their_folders() {
    const K3S: &str = "/var/lib/rancher/k3s";
    let k3s = |bin_dir: &str| configuration(3, bin_dir, "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    let file = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
    let net_d = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
    let each: [(&str, Files<'_>, &str, &str); 6] = [
        (
            "k3s (containerd)",
            &[(file, &k3s("/var/lib/rancher/k3s/data/cni"))],
            "/var/lib/rancher/k3s/data/cni",
            net_d,
        ),
        // It has not started before.
        (
            "k3s (containerd)",
            &[("/var/lib/rancher/k3s/server/token", "")],
            "/var/lib/rancher/k3s/data/cni",
            net_d,
        ),
        // No flannel: containerd's own defaults.
        ("k3s (containerd)", &[(file, "version = 2\n")], "/opt/cni/bin", "/etc/cni/net.d"),
        ("RKE2 (containerd)", &[("/var/lib/rancher/rke2/agent/x", "")], "/opt/cni/bin", "/etc/cni/net.d"),
        (
            "k0s (containerd)",
            &[
                ("/var/lib/k0s/bin/x", ""),
                ("/etc/k0s/containerd.toml", "version = 2\nimports = ['/etc/k0s/containerd.d/*.toml']\n"),
                ("/etc/k0s/containerd.d/cni.toml", &configuration(2, "/var/lib/own/bin", "/etc/own/net.d")),
            ],
            "/var/lib/own/bin",
            "/etc/own/net.d",
        ),
        (
            "nomad of unknown version",
            &[(
                "/etc/nomad.d/nomad.hcl",
                "client {\n  enabled = true\n  cni_path = \"/var/lib/own/bin:/opt/cni/bin\"\n}\n",
            )],
            "/opt/cni/bin",
            "/opt/cni/config",
        ),
    ];
    for (shown, files, bin_dir, conf_dir) in each {
        let node = Node::new("node");
        let ctl = Ctl::new(&node);
        files.iter().for_each(|(path, text)| ctl.write(path, text));
        goes_to(&ctl, shown, bin_dir, conf_dir);
    }
    // A snap keeps its data in a folder for each revision, copied from the previous folder.
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let snap = "/var/snap/microk8s/current";
    for (text, shown) in [
        (configuration(2, "${SNAP_DATA}/opt/cni/bin", "${SNAP_DATA}/args/cni-network"), "by its template"),
        (
            configuration(
                2,
                "/var/snap/microk8s/7229/opt/cni/bin",
                "/var/snap/microk8s/7229/args/cni-network",
            ),
            "filled in",
        ),
    ] {
        ctl.write("/var/snap/microk8s/7229/args/containerd.toml", &text);
        let _ = symlink("7229", ctl.path(snap));
        let (bin_dir, conf_dir) = (format!("{snap}/opt/cni/bin"), format!("{snap}/args/cni-network"));
        goes_to(&ctl, "MicroK8s (containerd)", &bin_dir, &conf_dir);
        assert!(ctl.has("/var/snap/microk8s/7229/opt/cni/bin/loopback"), "{shown}");
    }
    // Before October 2024 each release of k3s had a folder of its own.
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write(file, &k3s("/var/lib/rancher/k3s/data/abc123/bin"));
    fs::create_dir_all(ctl.path(&format!("{K3S}/data/abc123/bin"))).unwrap();
    symlink("/var/lib/rancher/k3s/data/abc123", ctl.path(&format!("{K3S}/data/current"))).unwrap();
    with_loopback(&ctl, &format!("{K3S}/data/abc123/bin"));
    let told = ctl.run(INSTALL).expect_ok();
    assert!(told.stdout.contains(&format!("new       {K3S}/data/current/bin/vlan-bridge: ")), "{told}");
    assert!(ctl.has(&format!("{K3S}/data/abc123/bin/vlan-bridge")));
}

/// Docker's package switches CRI off. Its containerd does not show the folders or versions of Kubernetes'
/// runtime.
#[test]
fn a_containerd_without_cri_decides_nothing() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write("/etc/docker/containerd.toml", "disabled_plugins = ['io.containerd.grpc.v1.cri']\n");
    ctl.write(
        "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        &configuration(3, "/var/lib/own/bin", "/etc/own/net.d"),
    );
    let docker = ctl.running("containerd", "containerd c 1.6.20 0", "--config /etc/docker/containerd.toml");
    goes_to(
        &ctl,
        "k3s (containerd) of unknown version, up to CNI 1.1.0",
        "/var/lib/own/bin",
        "/etc/own/net.d",
    );
    // The same with its configuration in the usual place. It is reported once.
    drop(docker);
    ctl.write("/etc/containerd/config.toml", "disabled_plugins = ['cri']\n");
    let _docker = ctl.running("containerd", "containerd c 1.6.20 0", "");
    let told = ctl.run(INSTALL).expect_ok();
    let found: Vec<&str> = told.stdout.lines().filter(|line| line.starts_with("found ")).collect();
    assert_eq!(found.len(), 2, "{told}");
    assert!(found[0].ends_with("containerd 1.6.20, with CRI (and so CNI) disabled"), "{told}");
}

#[test]
fn a_configuration_that_nobody_understands_stops_install_alone() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run(INSTALL).expect_ok();
    ctl.write("/etc/containerd/config.toml", "version = [");
    let refused = ctl.run(INSTALL);
    assert!(
        !refused.ok() && refused.stderr.contains("cannot parse /etc/containerd/config.toml"),
        "{refused}"
    );
    let findings = ctl.doctor("--no-probe");
    let finding = find(&findings, "runtimes");
    assert!(
        finding.verdict == "fail" && finding.seen.contains("/etc/containerd/config.toml"),
        "{findings:#?}"
    );
    assert_eq!(find(&findings, "lists").verdict, "ok", "{findings:#?}");
    let status = ctl.run("status").expect_ok();
    assert!(status.stdout.starts_with("NETWORK  local") && status.stderr.contains("config.toml"), "{status}");
    let told = ctl.run("uninstall").expect_ok();
    assert!(told.stderr.contains("config.toml") && !ctl.has("/opt/cni/bin/vlan-bridge"), "{told}");
}

/// If a program cannot be asked, such as k3s before its first start on a node, its configuration is read.
#[test]
fn a_configuration_of_version_3_is_a_containerd_2s() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    for (version, spoken) in [(2, "1.0.0"), (3, "1.1.0")] {
        let text = configuration(version, "/opt/cni/bin", "/etc/cni/net.d");
        ctl.write("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", &text);
        let told = ctl.run(INSTALL).expect_ok();
        let found = format!("found     k3s (containerd) of unknown version, up to CNI {spoken}\n");
        assert!(told.stdout.contains(&found), "{told}");
    }
}
