//! The steps about services, probes and host ports.

use crate::cluster::Cluster;
use crate::kubectl::LIMIT;
use crate::pods::{PORT, address, deployment, is_ready, pod, service, spec};
use crate::steps::ready;
use integration::{greets, poll};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Kubelet probes over the bridge. A pod that fails the probe gets no traffic.
pub fn probes(cluster: &Cluster) {
    let control = &cluster.control;
    control.apply(&pod("late", cluster.nodes[0].name, spec("/ready")));
    control.apply(&service("late"));
    let unhealthy = "events --field-selector involvedObject.name=late,reason=Unhealthy";
    poll(LIMIT, "a probe that the pod has answered with 404", || {
        control.items(unhealthy).iter().any(|event| event["message"].to_string().contains("404"))
    });
    let backends = || {
        let subsets = control.get("endpoints late")["subsets"].as_array().cloned().unwrap_or_default();
        let of = |subset: &Value| subset["addresses"].as_array().map_or(0, Vec::len);
        subsets.iter().map(of).sum::<usize>()
    };
    assert_eq!(backends(), 0);
    control.busybox("late", "touch /www/ready").expect_ok();
    ready(cluster, "late");
    poll(LIMIT, "a backend", || backends() == 1);
    control.busybox("late", "rm /www/ready").expect_ok();
    poll(LIMIT, "no backend", || backends() == 0 && !is_ready(&control.get("pod late")));
}

/// The address of a service.
#[track_caller]
fn cluster_ip(cluster: &Cluster, name: &str) -> IpAddr {
    let service = cluster.control.get(&format!("service {name}"));
    service["spec"]["clusterIP"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a service has an address")
}

/// Which pod answers another one.
fn who_answers(cluster: &Cluster, from: &str, to: SocketAddr) -> Option<String> {
    let told = cluster.control.fetch(from, to, "/name").stdout;
    told.split_once("\r\n\r\n").map(|(_, name)| name.trim().to_owned())
}

/// Four pods on both nodes behind one service, a pod behind its own service, and the API server, which is not
/// a pod.
pub fn services(cluster: &Cluster) {
    let control = &cluster.control;
    control.apply(&deployment("web", 4));
    control.apply(&service("web"));
    control.apply(&service("one"));
    control.kubectl("rollout status deployment/web --timeout 110s").expect_ok();
    let pods = control.items("pods --selector app=web");
    let nodes: BTreeSet<String> = pods.iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
    let names: BTreeSet<String> = pods.iter().map(name).collect();
    let web = SocketAddr::new(cluster_ip(cluster, "web"), 80);
    for from in ["one", "three"] {
        let mut seen = BTreeSet::new();
        // kube-proxy learns of them after a moment.
        poll(LIMIT, &format!("answers of {names:?} to {from}"), || {
            seen.extend(who_answers(cluster, from, web));
            seen == names
        });
        for _ in 0..8 {
            assert!(who_answers(cluster, from, web).is_some(), "no answer to {from}");
        }
    }
    for machine in &cluster.nodes {
        for _ in 0..8 {
            assert!(greets(&machine.node, web), "{web} does not answer {}", machine.name);
        }
    }
    let own = SocketAddr::new(cluster_ip(cluster, "one"), 80);
    poll(LIMIT, "a pod's answer to itself", || who_answers(cluster, "one", own).as_deref() == Some("one"));
    for from in ["one", "three"] {
        // The answer of Go's TLS server to a client without TLS.
        let told = control.fetch(from, ([10, 96, 0, 1], 443).into(), "/");
        assert!(told.stdout.contains("400 Bad Request"), "{told}");
    }
}

/// From another network, the other node, a pod on each node, and the node itself.
pub fn host_port(cluster: &Cluster) {
    const HOST_PORT: u16 = 8081;
    let (other, machine) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut published = spec("/");
    published["containers"][0]["ports"][0]["hostPort"] = HOST_PORT.into();
    cluster.control.apply(&pod("port", machine.name, published));
    let ip = address(&ready(cluster, "port"));
    assert!(greets(&cluster.router, SocketAddr::new(ip, PORT)));
    let to: SocketAddr = format!("{}:{HOST_PORT}", machine.address).parse().expect("an address and a port");
    for from in [&cluster.router, other.node.namespace(), machine.node.namespace()] {
        assert!(greets(from, to), "{to} does not answer {}", from.name());
    }
    let local = SocketAddr::from(([127, 0, 0, 1], HOST_PORT));
    assert!(greets(machine.node.namespace(), local), "{local} does not answer");
    for from in ["one", "three", "port"] {
        assert_eq!(who_answers(cluster, from, to).as_deref(), Some("port"), "asked by {from}");
    }
}
