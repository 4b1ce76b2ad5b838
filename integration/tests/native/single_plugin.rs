//! Runtimes read the configuration of a single plugin, in a `.conf`, as a list with one plugin, and so does
//! `vlan-bridgectl`. Also tests keys of lists that only some runtimes use.

use crate::doctor::find;
use integration::{Ctl, Node, Pod};
use serde_json::{Value, json};
use std::fs;

const CONF: &str = "/etc/cni/net.d/11-crio-ipv4-bridge.conf";

/// The list of CRI-O's package.
fn single(node: &Node) -> Value {
    json!({"cniVersion": "1.0.0", "name": "crio", "type": "vlan-bridge", "bridge": "cni0", "isGateway": true,
        "ipMasq": true, "hairpinMode": true,
        "ipam": {"type": "vlan-bridge-ipam", "routes": [{"dst": "0.0.0.0/0"}], "dataDir": node.data_dir(),
            "ranges": [[{"subnet": "10.85.0.0/16"}]]}})
}

#[test]
fn a_single_plugin_is_a_list_of_one() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write(CONF, &single(&node).to_string());
    let told = ctl.run(&format!("install --network {CONF}")).expect_ok();
    assert!(told.stdout.contains(&format!("replaced  {CONF}: CNI 1.0.0")), "{told}");
    let installed: Value = serde_json::from_str(&ctl.read(CONF)).unwrap();
    assert_eq!(installed, single(&node), "what is right is kept as it is");
    let told = ctl.run(&format!("install --network {CONF} -o json")).expect_ok();
    assert_eq!(
        (&told.json()["lists"][0]["state"], &told.json()["lists"][0]["name"]),
        (&json!("unchanged"), &json!("crio"))
    );

    let list = json!({"cniVersion": "1.0.0", "name": "crio", "plugins": [single(&node)]});
    let pod = Pod::new();
    node.client(&list).add(&pod.eth0()).expect_ok();
    let findings = ctl.doctor("--no-probe");
    assert!(findings.iter().all(|finding| finding.verdict != "fail"), "{findings:#?}");
    assert_eq!(find(&findings, "lists").seen, CONF, "{findings:#?}");
    assert_eq!(find(&findings, "status").seen, "the plugin is ready for network crio", "{findings:#?}");
    let told = ctl.run("status").expect_ok();
    assert!(told.stdout.starts_with("NETWORK  crio: bridge cni0 up"), "{told}");
    assert!(told.stdout.contains("\n10.85.0.2 "), "{told}");
    // Its own DEL is called, as for a list.
    ctl.run("uninstall --force").expect_ok();
    assert!(node.leases("crio").is_empty() && !ctl.has("/opt/cni/bin/vlan-bridge"));
    assert!(!pod.has_link("eth0"));
}

#[test]
fn a_single_plugin_gets_the_nodes_slice_and_version_too() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let mut conf = single(&node);
    conf["uplink"] = json!({"master": "nic0"});
    conf.as_object_mut()
        .unwrap()
        .retain(|key, _| !["isGateway", "ipMasq", "hairpinMode"].contains(&key.as_str()));
    conf["cniVersion"] = json!("1.1.0");
    for (template, target) in [
        ("/etc/t/11-x.conf", "/etc/cni/net.d/11-x.conf"),
        ("/etc/t/x.json", "/etc/cni/net.d/10-crio.conflist"),
    ] {
        ctl.write(template, &conf.to_string());
        let refused = ctl.run(&format!("install --network {template}"));
        assert!(refused.stderr.contains("no slice for node"), "{refused}");
        ctl.run(&format!("install --network {template} --slice 10.85.1.0/24")).expect_ok();
        let installed: Value = serde_json::from_str(&ctl.read(target)).unwrap();
        let plugin = if target.ends_with(".conf") { &installed } else { &installed["plugins"][0] };
        assert_eq!(plugin["ipam"]["ranges"][0][0]["slice"], "10.85.1.0/24", "{installed:#}");
        assert_eq!((&installed["cniVersion"], &installed["name"]), (&json!("1.0.0"), &json!("crio")));
        fs::remove_file(ctl.path(target)).unwrap();
    }
}

#[test]
fn a_file_that_is_named_for_something_else_is_taken_by_no_runtime() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let list = json!({"cniVersion": "1.0.0", "name": "crio", "plugins": [single(&node)]});
    for (path, content, right) in [
        ("/etc/cni/net.d/10-a.conf", &list, "10-a.conflist"),
        ("/etc/cni/net.d/10-a.conflist", &single(&node), "10-a.conf"),
    ] {
        ctl.run("install").expect_ok();
        ctl.write(path, &content.to_string());
        let findings = ctl.doctor("--no-probe");
        let lists = find(&findings, "lists");
        assert_eq!(lists.verdict, "fail", "{findings:#?}");
        assert_eq!(lists.fixes, [format!("mv {path} /etc/cni/net.d/{right}")]);
        fs::rename(ctl.path(path), ctl.path(&format!("/etc/cni/net.d/{right}"))).unwrap();
        assert_eq!(find(&ctl.doctor("--no-probe"), "lists").verdict, "ok");
        fs::remove_file(ctl.path(&format!("/etc/cni/net.d/{right}"))).unwrap();
    }
}

#[test]
fn a_list_that_runtimes_share_has_no_gc() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let path = "/etc/cni/net.d/10-local.conflist";
    let install = |words: &str| {
        let told = ctl.run(&format!("install {words}")).expect_ok();
        (told.stderr.clone(), serde_json::from_str::<Value>(&ctl.read(path)).unwrap())
    };
    let line = "--name local --subnet 10.22.0.0/16";
    ctl.program("containerd", "containerd c v2.1.9 0");
    assert_eq!(install(line).1.get("disableGC"), None);
    ctl.program("crio", "crio version 1.31.2");
    let (told, list) = install(line);
    assert_eq!(list["disableGC"], true);
    assert!(told.contains("disableGC: true: containerd and crio share this network"), "{told}");
    // An explicit setting is kept.
    let mut own = list;
    own["disableGC"] = json!(false);
    ctl.write("/etc/10-local.conflist", &own.to_string());
    assert_eq!(install("--network /etc/10-local.conflist").1["disableGC"], false);
    // The same network from another folder is the same network.
    ctl.write("/etc/crio/crio.conf", "[crio.network]\nnetwork_dir = '/etc/crio/net.d'\n");
    assert_eq!(install(line).1["disableGC"], true);
    assert_eq!(install(&format!("{line} --conf-dir /etc/cni/net.d")).1.get("disableGC"), None);
}
