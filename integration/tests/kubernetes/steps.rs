//! The steps. Each one leaves state for the next.

use crate::agent;
use crate::cluster::{Cluster, GATEWAY, PODS, SERVICES};
use crate::kubectl::LIMIT;
use crate::operate::{change, crash, drain, fifty, uninstall};
use crate::pods::{PORT, address, is_ready, pod, spec};
use crate::services::{host_port, probes, services};
use integration::{greets, poll};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

type Step = (&'static str, fn(&Cluster));

/// All of them.
pub const ALL: [Step; 16] = [
    ("nodes_are_ready_once_the_daemonset_has_installed_the_network", install),
    ("pods_reach_each_other_and_the_router", traffic),
    ("probes_decide_who_gets_a_services_traffic", probes),
    ("services_lead_pods_and_nodes_to_all_their_pods", services),
    ("a_host_port_leads_to_its_pod_from_everywhere", host_port),
    ("fifty_pods_are_ready_and_answer", fifty),
    ("a_drained_node_is_left_empty_and_takes_pods_again", drain),
    ("pods_outlive_a_crash_of_kubelet_and_containerd", crash),
    ("a_changed_configmap_is_installed_for_the_next_pods", change),
    ("the_component_agent_is_added_to_the_daemonset", agent::install),
    ("the_agent_restores_a_nodes_rules_and_creates_an_event_of_the_node", agent::restores),
    ("an_address_conflict_is_an_event_of_the_pod", agent::names_the_pod),
    ("prometheus_can_scrape_each_node", agent::is_scraped),
    ("agents_are_replaced_while_pods_come_and_go", agent::rolls),
    ("nothing_is_left_of_pods_that_are_gone", gone),
    ("a_node_is_as_it_was_after_uninstall", uninstall),
];

/// README of `deploy/`: the network goes into the ConfigMap, then everything is applied.
fn install(cluster: &Cluster) {
    let control = &cluster.control;
    poll(LIMIT, "two Nodes with a podCIDR", || {
        let nodes = control.items("nodes");
        nodes.len() == 2 && nodes.iter().all(|node| node["spec"]["podCIDR"].is_string())
    });
    assert!(control.items("nodes").iter().all(|node| !is_ready(node)), "ready without a network");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base");
    for entry in fs::read_dir(base).expect("there are manifests").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a manifest is text");
        control.host.write(&format!("/deploy/base/{}", entry.file_name().display()), &text);
    }
    control.host.write("/deploy/base/configmap.yaml", &network(None).to_string());
    control.kubectl("apply -k /deploy/base").expect_ok();
    poll(LIMIT, "both Nodes are ready", || control.items("nodes").iter().all(is_ready));
    let rolled = "rollout status daemonset/vlan-bridge --namespace kube-system --timeout 100s";
    control.kubectl(rolled).expect_ok();
    for machine in &cluster.nodes {
        let path = machine.containerd.path("/etc/cni/net.d/10-vlan136.conflist");
        let list: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let node = control.get(&format!("node {}", machine.name));
        assert_eq!(list["plugins"][0]["ipam"]["slice"], node["spec"]["podCIDR"]);
        assert_eq!(list["cniVersion"], "1.0.0", "what containerd 1.6 takes");
    }
}

/// The ConfigMap with the network of this cluster.
pub fn network(mtu: Option<u32>) -> Value {
    let mut list = json!({"cniVersion": "1.1.0", "name": "vlan136", "plugins": [{
        "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"},
        "serviceCIDRs": [SERVICES], "capabilities": {"portMappings": true},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": PODS, "gateway": GATEWAY,
                 "routes": [{"dst": "0.0.0.0/0"}]},
    }]});
    if let Some(mtu) = mtu {
        list["plugins"][0]["mtu"] = mtu.into();
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vlan-bridge"},
           "data": {"10-vlan136.conflist": list.to_string()}})
}

/// The pod when it is ready.
#[track_caller]
pub fn ready(cluster: &Cluster, name: &str) -> Value {
    let mut told = Value::Null;
    poll(LIMIT, &format!("{name} is ready"), || {
        told = cluster.control.get(&format!("pod {name}"));
        is_ready(&told)
    });
    told
}

/// Two pods of one node and one of the other.
fn traffic(cluster: &Cluster) {
    let control = &cluster.control;
    let [n1, n2] = [0, 1].map(|index| cluster.nodes[index].name);
    for (name, node) in [("one", n1), ("two", n1), ("three", n2)] {
        control.apply(&pod(name, node, spec("/")));
    }
    let addresses = ["one", "two", "three"].map(|name| address(&ready(cluster, name)));
    for from in ["one", "two", "three"] {
        for to in addresses.iter().map(IpAddr::to_string).chain([GATEWAY.to_owned()]) {
            control.busybox(from, &format!("ping -c 1 -W 5 {to}")).expect_ok();
        }
    }
    for ip in addresses {
        let to = SocketAddr::new(ip, PORT);
        assert!(greets(&cluster.router, to), "{to} does not answer the router");
    }
}

/// Everything is deleted.
fn gone(cluster: &Cluster) {
    let control = &cluster.control;
    control.kubectl("delete deployments,services,pods --all --timeout 110s").expect_ok();
    for machine in &cluster.nodes {
        machine.await_empty();
    }
}
