//! Records in `/run` of a node whose network namespace is gone.

use integration::{Ctl, Node, Pod};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A network with host ports and routes to its pods. An attachment has every kind of record that a NAT
/// network needs.
fn list(node: &Node) -> Value {
    let conf = json!({"type": "vlan-bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
        "capabilities": {"portMappings": true},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    node.list("local", &[conf])
}

fn attach(node: &Node, pod: &Pod) {
    let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    node.client(&list(node)).add(&pod.eth0().capabilities(ports)).expect_ok();
}

/// The folders that have records of a node.
fn folders(cookie: u64) -> Vec<PathBuf> {
    let kinds = std::fs::read_dir("/run/vlan-bridge").unwrap().flatten();
    kinds.map(|kind| kind.path().join(cookie.to_string())).filter(|folder| folder.exists()).collect()
}

/// Removes a node's namespace, but none of its records.
fn end(node: Node, written: &[PathBuf]) {
    let aside = |folder: &PathBuf| folder.with_extension("aside");
    written.iter().for_each(|folder| std::fs::rename(folder, aside(folder)).unwrap());
    drop(node);
    written.iter().for_each(|folder| std::fs::rename(aside(folder), folder).unwrap());
}

#[test]
fn they_go_with_the_next_gc_or_repair_once_no_pod_is_left() {
    let (node, pod) = (Node::new("node"), Pod::new());
    attach(&node, &pod);
    let own = folders(node.cookie());
    assert!(own.iter().any(|folder| folder.starts_with("/run/vlan-bridge/attachments")), "{own:?}");
    let ctl = Ctl::new(&node);
    let repair = || drop(ctl.run("repair"));
    let collect = || {
        let valid = json!([{"containerID": pod.id(), "ifname": "eth0"}]);
        node.plugin(&list(&node)).with("cni.dev/valid-attachments", valid).gc().expect_ok();
    };
    for prune in [&repair as &dyn Fn(), &collect] {
        let (other, others_pod) = (Node::new("other"), Pod::new());
        attach(&other, &others_pod);
        let cookie = other.cookie();
        let written = folders(cookie);
        prune();
        assert_eq!(folders(cookie), written, "the other node is there, with no process in it");
        end(other, &written);
        prune();
        assert_eq!(folders(cookie), written, "its pod is there");
        drop(others_pod);
        prune();
        assert_eq!(folders(cookie), Vec::<PathBuf>::new());
        assert_eq!(folders(node.cookie()), own, "our own stays");
    }
}
