//! `vlan-bridgectl install` and `uninstall`: the installed files, the refusals, and the restored files.

pub(crate) mod agent;
pub(crate) mod at_once;
pub(crate) mod denied;
pub(crate) mod kubernetes;
pub(crate) mod runtimes;
pub(crate) mod slices;

use integration::{Ctl, Node, Outcome, Pod, Site, Snapshot, poll, product, set_keys};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

const LIST: &str = "/etc/cni/net.d/10-vlan136.conflist";
const BY_HAND: &str = "{\"name\": \"by hand\"}";
const PREVIOUS_OURS: &str = "/var/lib/vlan-bridge/previous/ours/10-vlan136.conflist";
const PREVIOUS: &str = "/var/lib/vlan-bridge/previous/10-vlan136.conflist";

/// A template for all nodes, at `/etc/10-vlan136.conflist`.
fn with_template(ctl: &Ctl, list: &Value) -> String {
    ctl.write("/etc/10-vlan136.conflist", &list.to_string());
    "install --network /etc/10-vlan136.conflist".into()
}

fn template() -> Value {
    json!({"cniVersion": "1.1.0", "name": "vlan136", "plugins": [{
        "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "gateway": "172.20.56.1",
            "routes": [{"dst": "0.0.0.0/0"}]}}]})
}

fn installed(ctl: &Ctl) -> Value {
    serde_json::from_str(&ctl.read(LIST)).unwrap()
}

#[track_caller]
fn refused(outcome: &Outcome, named: &[&str]) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert!(outcome.stdout.is_empty(), "{outcome}");
    for name in named {
        assert!(outcome.stderr.contains(name), "{name} is not in {outcome}");
    }
}

#[test]
fn a_node_gets_plugins_and_list_and_gives_them_back() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let mut list = template();
    list["plugins"][0]["ipam"]["dataDir"] = json!(site.node.data_dir());
    let line = with_template(&ctl, &list) + " --slice 172.20.56.16/28";
    let told = ctl.run(&line).expect_ok();
    for text in ["new       /opt/cni/bin/vlan-bridge: 0.1.0", "CNI 1.0.0, slice 172.20.56.16/28 (--slice)"] {
        assert!(told.stdout.contains(text), "{told}");
    }
    for name in ["vlan-bridge", "vlan-bridge-ipam"] {
        let path = ctl.path(&format!("/opt/cni/bin/{name}"));
        assert_eq!(fs::read(&path).unwrap(), fs::read(product().join(name)).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    }
    let inode = |name: &str| fs::metadata(ctl.path(&format!("/opt/cni/bin/{name}"))).unwrap().ino();
    assert_eq!(inode("vlan-bridge"), inode("vlan-bridge-ipam"), "both are one program");
    // A copy becomes a link again, and a link stays.
    let ipam = ctl.path("/opt/cni/bin/vlan-bridge-ipam");
    fs::remove_file(&ipam).unwrap();
    fs::copy(ctl.path("/opt/cni/bin/vlan-bridge"), &ipam).unwrap();
    for _ in 0..2 {
        let told = ctl.run(&line).expect_ok();
        for name in ["vlan-bridge", "vlan-bridge-ipam"] {
            assert!(told.stdout.contains(&format!("unchanged /opt/cni/bin/{name}: ")), "{told}");
        }
        assert_eq!(inode("vlan-bridge"), inode("vlan-bridge-ipam"), "both are one program");
        let names = fs::read_dir(ctl.path("/opt/cni/bin")).unwrap().count();
        assert_eq!(names, 2, "no temporary file is left");
    }
    // No runtime was found, so the list has a version that every runtime supports.
    assert_eq!(installed(&ctl)["cniVersion"], "1.0.0");
    assert!(told.stderr.contains("cniVersion: 1.0.0 instead of 1.1.0: no runtime was found"), "{told}");
    assert_eq!(installed(&ctl)["plugins"][0]["ipam"]["slice"], "172.20.56.16/28");

    // The list works unchanged.
    let before = Snapshot::of(&site.node);
    let (client, pod) = (site.node.client(&installed(&ctl)), Pod::new());
    let result = client.add(&pod.eth0()).result();
    assert_eq!(result.cidr(), "172.20.56.16/24");
    refused(&ctl.run("uninstall"), &[" eth0 of vlan136): drain the node first", "--force"]);
    assert!(ctl.has(LIST) && site.node.has_link("br136"));
    client.del(&pod.eth0()).expect_ok();
    let told = ctl.run("uninstall").expect_ok();
    assert!(told.stdout.contains("removed   interface br136"), "{told}");
    assert!(
        !ctl.has(LIST) && !ctl.has("/opt/cni/bin/vlan-bridge") && !ctl.has("/opt/cni/bin/vlan-bridge-ipam")
    );
    before.assert_unchanged(&site.node);
    assert_eq!(ctl.run("uninstall").expect_ok().stdout, "nothing was installed\n");
}

#[test]
fn force_takes_attached_pods_away_and_nothing_of_others() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let mut list = template();
    list["plugins"][0]["ipam"]["dataDir"] = json!(site.node.data_dir());
    let line = with_template(&ctl, &list) + " --slice 172.20.56.16/28 -o json";
    let told = ctl.run(&line).expect_ok().json();
    assert_eq!((&told["lists"][0]["state"], &told["binaries"][1]["before"]), (&json!("new"), &Value::Null));
    site.give_node_its_own_network();
    let before = Snapshot::of(&site.node);
    let (pod, dead) = (Pod::new(), Pod::new());
    for pod in [&pod, &dead] {
        site.node.client(&site.list()).add(&pod.eth0()).expect_ok();
    }
    let count = || site.node.run("ip -o link show type veth").stdout.matches("master br136").count();
    drop(dead);
    poll(Duration::from_secs(10), "the dead pod's veth is gone", || count() == 2);
    site.node.ip("link add tap0 type veth peer name guest\nlink set tap0 master br136");
    let told = ctl.run("uninstall --force").expect_ok();
    assert!(told.stderr.contains("left br136: tap0 is a port of it"), "{told}");
    assert!(!pod.has_link("eth0") && site.node.has_link("br136"));
    assert_eq!(site.node.leases(Site::NETWORK), ["172.20.56.17"], "the plugin's own DEL was called");
    // A pod that ended without DEL leaves no trace either, although the bridge of its host routes is there.
    for what in ["route show proto 117", "neigh show nud permanent dev br136"] {
        assert_eq!(site.node.run(&format!("ip {what}")).expect_ok().stdout, "", "{what}");
    }
    let records = format!("/run/vlan-bridge/guards/{}", site.node.cookie());
    assert!(!Path::new(&records).exists(), "{records} is left");
    site.node.ip("link del tap0");
    ctl.run("uninstall").expect_ok();
    before.assert_unchanged(&site.node);
}

#[test]
fn a_list_is_replaced_in_one_step_and_the_old_one_kept() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write(LIST, BY_HAND);
    let line = with_template(&ctl, &template());
    let told = ctl.run(&format!("{line} --slice 172.20.56.16/28")).expect_ok();
    assert!(told.stdout.contains("replaced  /etc/cni/net.d/10-vlan136.conflist"), "{told}");
    assert_eq!(ctl.read(PREVIOUS), BY_HAND);
    let first = ctl.read(LIST);
    let told = ctl.run(&format!("{line} --slice 172.20.56.32/28")).expect_ok();
    assert!(told.stdout.contains("unchanged /opt/cni/bin/vlan-bridge"), "{told}");
    assert_eq!((ctl.read(PREVIOUS).as_str(), ctl.read(PREVIOUS_OURS)), (BY_HAND, first.clone()));
    // A second install changes nothing, also not the kept list.
    let told = ctl.run(&format!("{line} --slice 172.20.56.32/28")).expect_ok();
    assert!(told.stdout.contains("unchanged /etc/cni"), "{told}");
    assert_eq!((ctl.read(PREVIOUS).as_str(), ctl.read(PREVIOUS_OURS)), (BY_HAND, first));
    let names: Vec<_> = fs::read_dir(ctl.path("/etc/cni/net.d")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn uninstall_gives_the_list_of_others_back_and_takes_none() {
    const SECOND: &str = "{\"name\": \"vlan136\", \"plugins\": [{\"type\": \"bridge\"}]}";
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write(LIST, BY_HAND);
    fs::set_permissions(ctl.path(LIST), fs::Permissions::from_mode(0o600)).unwrap();
    let line = with_template(&ctl, &template()) + " --slice 172.20.56.16/28";
    ctl.run(&line).expect_ok();
    let told = ctl.run("uninstall").expect_ok();
    assert!(told.stdout.contains("restored  /etc/cni/net.d/10-vlan136.conflist"), "{told}");
    assert_eq!(ctl.read(LIST), BY_HAND);
    assert_eq!(fs::metadata(ctl.path(LIST)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!ctl.has(PREVIOUS) && ctl.has(PREVIOUS_OURS), "what is given back is kept no longer");

    // An operator has put another list there. It stays, and the first one is kept.
    ctl.run(&line).expect_ok();
    ctl.write(LIST, SECOND);
    let told = ctl.run("uninstall -o json").expect_ok();
    assert_eq!(told.json()["restored"], json!([]), "{told}");
    assert!(told.json()["left"].to_string().contains("is another list now"), "{told}");
    assert_eq!((ctl.read(LIST).as_str(), ctl.read(PREVIOUS).as_str()), (SECOND, BY_HAND));

    // The next kept list does not replace that one either.
    ctl.run(&line).expect_ok();
    assert_eq!(ctl.read(PREVIOUS), BY_HAND);
    ctl.run("uninstall").expect_ok();
    assert_eq!((ctl.read(LIST).as_str(), ctl.read(PREVIOUS).as_str()), (SECOND, BY_HAND));

    // A list with our own plugin would not be restored.
    ctl.write(LIST, &template().to_string());
    ctl.run(&line).expect_ok();
    let told = ctl.run("uninstall").expect_ok();
    assert!(
        told.stderr.contains("it needs the plugin vlan-bridge, which was removed") && !ctl.has(LIST),
        "{told}"
    );
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write("/var/lib/vlan-bridge", "");
    let line = with_template(&ctl, &template()) + " --slice 172.20.56.16/28";
    refused(&ctl.run(&line), &["vlan-bridgectl: /var/lib/vlan-bridge: cannot create: "]);
}

#[test]
fn what_is_wrong_leaves_the_node_as_it_is() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write("/etc/slices", "other 172.20.56.32/28\nthis 172.20.56.16/28,fd00::/64\n");
    ctl.write("/etc/torn.conflist", "{");
    let both = |part: &str| format!("--network /etc/10-vlan136.conflist {part}");
    let wrong = |keys: Value| {
        let mut list = template();
        set_keys(&mut list["plugins"][0], &keys);
        list
    };
    let ipam = |keys: Value| {
        let mut list = template();
        set_keys(&mut list["plugins"][0]["ipam"], &keys);
        list
    };
    let own = || ipam(json!({"slice": "172.20.56.16/28"}));
    let cases: [(Value, String, &[&str]); 18] = [
        (
            template(),
            both(""),
            &["no slice for node", "set --slice CIDR", "set --mapping to a file with a line"],
        ),
        (
            own(),
            both("--slice 172.20.56.32/28"),
            &[
                "/etc/10-vlan136.conflist: the list has ipam.slice 172.20.56.16/28, and --slice has 172.20.56.32/28: \
                 remove it from the list",
            ],
        ),
        (
            own(),
            both("--mapping /etc/slices --node other"),
            &["the list has ipam.slice 172.20.56.16/28, and /etc/slices has 172.20.56.32/28"],
        ),
        (
            ipam(json!({"rangeStart": "172.20.56.8"})),
            both("--slice 172.20.56.16/28"),
            &["the list has ipam.rangeStart 172.20.56.8, and --slice has 172.20.56.16/28"],
        ),
        (own(), both("--slice 10.0.0.0/28"), &["10.0.0.0/28", "--slice", "172.20.56.0/24"]),
        (
            ipam(json!({"type": "host-local"})),
            both("--slice 172.20.56.16/28"),
            &["--slice 172.20.56.16/28 needs a range of vlan-bridge-ipam"],
        ),
        (
            template(),
            "--slice 172.20.56.16/28".into(),
            &["--slice 172.20.56.16/28 needs a network list", "--network"],
        ),
        (template(), "--mapping /etc/slices".into(), &["--mapping /etc/slices needs a network list"]),
        (template(), both("--slice 10.0.0.0/28"), &["10.0.0.0/28", "--slice", "172.20.56.0/24"]),
        (template(), both("--slice 172.20.56.17/28"), &["ipam.slice", "host bits", "172.20.56.16/28"]),
        (
            template(),
            both("--node stranger --mapping /etc/slices"),
            &["node stranger", "/etc/slices has no line"],
        ),
        (template(), both("--mapping /etc/none --node n"), &["/etc/none", "file not found"]),
        (
            template(),
            both("--node new --mapping /etc/slices --slice 172.20.56.32/29"),
            &["172.20.56.32/29 of node new", "172.20.56.32/28 of node other"],
        ),
        (wrong(json!({"uplink": {"vlan": 1}})), both("--slice 172.20.56.16/28"), &["uplink.master"]),
        (
            wrong(json!({"type": "bridge"})),
            both(""),
            &["/etc/10-vlan136.conflist", "no plugin of type vlan-bridge"],
        ),
        (template(), "--network /etc/torn.conflist".into(), &["/etc/torn.conflist", "not JSON"]),
        (template(), both("--slice 172.20.56.16/28 --cni-version 1.2"), &["1.2", "1.1.0"]),
        (template(), both("--slice 172.20.56.16/28 --from /etc"), &["/etc/vlan-bridge", "--from"]),
    ];
    for (list, words, named) in cases {
        ctl.write("/etc/10-vlan136.conflist", &list.to_string());
        ctl.write(LIST, "as it was");
        refused(&ctl.run(&format!("install {words}")), named);
        assert_eq!(ctl.read(LIST), "as it was", "{words}");
        assert!(!ctl.has("/opt/cni/bin") && !ctl.has("/var/lib/vlan-bridge"), "{words}");
    }
}

#[test]
fn a_master_that_is_missing_is_warned_of() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let line = with_template(&ctl, &template()) + " --slice 172.20.56.16/28";
    let warning = "uplink.master: there is no interface nic0 yet";
    let told = ctl.run(&line).expect_ok();
    assert!(told.stderr.contains(warning), "{told}");
    node.ip("link add nic0 type veth peer name switch");
    let told = ctl.run(&line).expect_ok();
    assert!(!told.stderr.contains(warning), "{told}");
}

#[test]
fn runtimes_say_where_things_go_and_which_version_is_spoken() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.program("containerd", "containerd github.com/containerd/containerd v2.1.9 0.0");
    ctl.write(
        "/etc/containerd/config.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n\
         bin_dirs = ['/var/lib/cni-bin']\nconf_dir = '/etc/containerd/net.d'\n",
    );
    ctl.write("/etc/containerd/net.d/05-first.conf", "{\"name\": \"first\", \"type\": \"bridge\"}");
    ctl.write("/etc/containerd/net.d/90-again.conflist", "{\"name\": \"vlan136\", \"plugins\": []}");
    let line = "install --name vlan136 --master bond0 --vlan 136 --subnet 172.20.56.0/24 --gateway 172.20.56.1 \
                --exclude 172.20.56.17 --slice 172.20.56.16/28";
    let told = ctl.run(line).expect_ok();
    assert!(told.stdout.contains("found     containerd 2.1.9, up to CNI 1.1.0"), "{told}");
    for warning in ["05-first.conf sorts before", "90-again.conflist also describes the network \"vlan136\""]
    {
        assert!(told.stderr.contains(warning), "{told}");
    }
    assert!(ctl.has("/var/lib/cni-bin/vlan-bridge"));
    let list: Value = serde_json::from_str(&ctl.read("/etc/containerd/net.d/10-vlan136.conflist")).unwrap();
    let expected = json!({"cniVersion": "1.1.0", "name": "vlan136", "plugins": [{
        "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "bond0", "vlan": 136},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "slice": "172.20.56.16/28",
            "gateway": "172.20.56.1", "exclude": ["172.20.56.17"], "routes": [{"dst": "0.0.0.0/0"}]}}]});
    assert_eq!(list, expected);
    // With a second, older runtime, the list gets a version that both support.
    ctl.program("podman", "podman version 4.3.1");
    let told = ctl.run(&format!("{line} --conf-dir /etc/cni/net.d")).expect_ok();
    assert!(told.stdout.contains("found     podman 4.3.1, up to CNI 1.0.0"), "{told}");
    assert!(ctl.has("/opt/cni/bin/vlan-bridge"), "podman does not look where containerd does");
    assert_eq!(installed(&ctl)["cniVersion"], "1.0.0");
    ctl.write("/etc/containerd/config.toml", "version = [");
    refused(&ctl.run(line), &["/etc/containerd/config.toml"]);
}

#[test]
fn help_tells_each_verb_and_misuse_what_would_be_right() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let help = ctl.run("--help").expect_ok();
    assert!(help.stdout.contains("install") && help.stderr.is_empty(), "{help}");
    assert!(ctl.run("install --help").expect_ok().stdout.contains("--slice"));
    assert!(ctl.run("--version").expect_ok().stdout.starts_with("vlan-bridgectl 0.1.0"));
    for line in ["", "instal", "install --slice 172.20.56.16", "install --vlan 136", "uninstall --what"] {
        let outcome = ctl.run(line);
        assert_eq!(outcome.status.code(), Some(2), "{outcome}");
        assert!(outcome.stderr.contains("--help") && outcome.stdout.is_empty(), "{outcome}");
        assert_eq!(outcome.stderr.contains("not a CIDR such as 172.20.56.16/28"), line.contains("--slice"));
    }
    let told = ctl.run("install").expect_ok();
    assert!(told.stdout.contains("plugins only: without --network or --name no list is installed"), "{told}");
}
