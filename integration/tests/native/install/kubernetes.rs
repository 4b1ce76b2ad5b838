//! `vlan-bridgectl install` within a pod: it gets this node's slice from the Kubernetes API.

use crate::api_server::ApiServer;
use integration::{Background, Ctl, Node, Outcome, poll, run};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LIST: &str = "/etc/cni/net.d/10-vlan136.conflist";

/// Installs in a pod of the node.
fn install(server: &ApiServer, ctl: &Ctl, words: &str) -> Outcome {
    run(&mut command(server, ctl, words))
}

fn command(server: &ApiServer, ctl: &Ctl, words: &str) -> Command {
    let line =
        "install --name vlan136 --master bond0 --vlan 136 --subnet 172.20.56.0/24 --gateway 172.20.56.1";
    server.within(ctl, &format!("{line} {words}"))
}

fn node(name: &str, annotation: Option<&str>, cidrs: &[&str]) -> Value {
    let mut node = json!({"metadata": {"name": name, "annotations": {}},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        "status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.9"}}});
    if let Some(slice) = annotation {
        node["metadata"]["annotations"]["cni.vlan-bridge/slice"] = slice.into();
    }
    node
}

fn slice(ctl: &Ctl) -> Value {
    let list: Value = serde_json::from_str(&ctl.read(LIST)).unwrap();
    list["plugins"][0]["ipam"]["slice"].clone()
}

#[test]
fn each_source_of_a_slice_goes_before_the_next() {
    let machine = Node::new("node");
    machine.ip("link add bond0 type veth peer name switch");
    let ctl = Ctl::new(&machine);
    let both = node("n1", Some("172.20.56.48/28"), &["172.20.56.16/28"]);
    let server = ApiServer::start(&machine, &[both, node("n2", None, &["172.20.56.32/28"])]);
    ctl.write("/etc/slices", "n1 172.20.56.64/28\n");
    let cases = [
        (None, "--slice 172.20.56.80/28", "172.20.56.80/28", "--slice"),
        (None, "", "172.20.56.48/28", "annotation of Node n1"),
        (Some(node("n1", None, &["172.20.56.16/28"])), "", "172.20.56.16/28", "spec.podCIDRs of Node n1"),
        (Some(node("n1", None, &[])), "", "172.20.56.64/28", "/etc/slices"),
    ];
    for (changed, words, expected, source) in cases {
        server.nodes.lock().unwrap()[0] = changed.unwrap_or_else(|| server.nodes.lock().unwrap()[0].clone());
        let told = install(&server, &ctl, &format!("--mapping /etc/slices {words}")).expect_ok();
        assert!(told.stdout.contains(&format!("{expected} ({source})")), "{told}");
        assert_eq!(slice(&ctl), expected, "{told}");
        assert_eq!(
            told.stdout.contains("found     containerd 2.1.9, up to CNI 1.1.0"),
            words.is_empty(),
            "{told}"
        );
        assert!(told.stderr.is_empty(), "{told}");
    }
}

#[test]
fn what_the_node_says_otherwise_than_the_list_is_told() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", Some("172.20.56.32/28"), &[])]);
    install(&server, &ctl, "").expect_ok();
    ctl.write("/etc/10-vlan136.conflist", &ctl.read(LIST));
    server.nodes.lock().unwrap()[0] = node("n1", Some("172.20.56.48/28"), &[]);
    let told = run(&mut server.within(&ctl, "install --network /etc/10-vlan136.conflist")).expect_ok();
    let word = "the list has ipam.slice 172.20.56.32/28, and annotation of Node n1 has 172.20.56.48/28: \
                using the list's";
    assert!(told.stderr.contains(word), "{told}");
    assert_eq!(slice(&ctl), "172.20.56.32/28");
}

#[test]
fn the_first_nodes_slice_holds_the_router_and_it_is_not_given_out() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", None, &["172.20.56.0/28"])]);
    install(&server, &ctl, "--exclude 172.20.56.2").expect_ok();
    assert_eq!(slice(&ctl), "172.20.56.0/28");
}

#[test]
fn what_the_cluster_says_wrong_leaves_the_old_list() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", None, &[]), node("n2", None, &["172.20.56.32/28"])]);
    ctl.write(LIST, "as it was");
    let cases: [(Value, &[&str]); 5] = [
        (node("n1", None, &[]), &["no slice for node n1", "annotation cni.vlan-bridge/slice", "podCIDR"]),
        (
            node("n1", Some("172.20.56.32/29"), &[]),
            &["172.20.56.32/29 of node n1", "172.20.56.32/28 of node n2"],
        ),
        (node("n1", None, &["10.244.0.0/28"]), &["10.244.0.0/28", "spec.podCIDRs", "172.20.56.0/24"]),
        (node("n1", Some("x"), &[]), &["annotation cni.vlan-bridge/slice of Node n1", "\"x\""]),
        (node("n9", None, &[]), &["there is no Node n1", "NODE_NAME"]),
    ];
    for (changed, named) in cases {
        server.nodes.lock().unwrap()[0] = changed;
        let outcome = install(&server, &ctl, "");
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        for name in named {
            assert!(outcome.stderr.contains(name), "{name} is not in {outcome}");
        }
        assert!(ctl.read(LIST) == "as it was" && !ctl.has("/opt/cni/bin"), "{outcome}");
    }
    // An account that may only read its own Node, as recommended, does not learn other slices.
    server.nodes.lock().unwrap()[0] = node("n1", None, &["172.20.56.16/28"]);
    server.may_list.store(false, Ordering::SeqCst);
    let told = install(&server, &ctl, "").expect_ok();
    assert!(told.stderr.contains("cannot check whether another node has the same slice"), "{told}");
    assert!(told.stderr.contains("nodes is forbidden"), "{told}");
}

#[test]
fn nobody_but_the_clusters_own_api_server_is_believed() {
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let nodes = [node("n1", None, &["172.20.56.16/28"])];
    let (server, impostor) = (ApiServer::start(&machine, &nodes), ApiServer::start(&machine, &nodes));
    install(&server, &ctl, "").expect_ok();
    let outcome = install(&impostor, &ctl, "");
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert!(outcome.stderr.contains("certificate"), "{outcome}");
    ctl.write("/run/secrets/kubernetes.io/serviceaccount/token", "expired");
    let outcome = install(&server, &ctl, "");
    assert!(!outcome.ok() && outcome.stderr.contains("401: Unauthorized"), "{outcome}");
}

#[test]
fn a_watch_installs_again_when_the_nodes_annotation_or_pod_cidr_changes() {
    const LIMIT: Duration = Duration::from_secs(120);
    let machine = Node::new("node");
    let ctl = Ctl::new(&machine);
    let server = ApiServer::start(&machine, &[node("n1", None, &["172.20.56.16/28"])]);
    let _watch = Background::start(&mut command(&server, &ctl, "--watch"));
    let reaches =
        |wanted: &str| poll(LIMIT, &format!("slice {wanted}"), || ctl.has(LIST) && slice(&ctl) == wanted);
    reaches("172.20.56.16/28");
    let change = |to| server.nodes.lock().unwrap()[0] = to;
    change(node("n1", None, &["172.20.56.32/28"]));
    reaches("172.20.56.32/28");
    change(node("n1", Some("172.20.56.64/28"), &["172.20.56.32/28"]));
    reaches("172.20.56.64/28");
}

/// As in the DaemonSet on k3s: the container sees the node's folders, and kubelet's report of the runtime.
#[test]
fn what_kubelet_says_is_of_the_distribution_whose_folders_are_there() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let mut of_k3s = self::node("n1", Some("172.20.56.16/28"), &[]);
    of_k3s["status"]["nodeInfo"]["containerRuntimeVersion"] = json!("containerd://2.1.4-k3s1");
    let server = ApiServer::start(&node, &[of_k3s]);
    let (plugins, lists) = ("/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d");
    [plugins, lists].iter().for_each(|folder| std::fs::create_dir_all(ctl.path(folder)).unwrap());
    let told = install(&server, &ctl, "").expect_ok();
    assert!(told.stdout.contains("found     k3s (containerd) 2.1.4-k3s1, up to CNI 1.1.0\n"), "{told}");
    assert!(ctl.has(&format!("{plugins}/vlan-bridge")) && ctl.has(&format!("{lists}/10-vlan136.conflist")));
    assert!(!ctl.has("/opt/cni/bin") && !ctl.has(LIST), "{told}");
}
