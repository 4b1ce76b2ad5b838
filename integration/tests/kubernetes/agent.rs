//! The steps about the node agent.

use crate::cluster::Cluster;
use crate::kubectl::LIMIT;
use crate::machine::Machine;
use crate::operate::{all_answer, all_fifty};
use crate::pods::{PORT, address, pod, spec};
use crate::steps::ready;
use integration::{Scrape, arp_announcement, greets, note, poll};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The port of the agent's metrics.
const METRICS: u16 = 9470;

/// README of `deploy/`: the component `agent`. This kubectl is older than components, so its patch is applied
/// by `kubectl patch`, which merges in the same way.
pub fn install(cluster: &Cluster) {
    let control = &cluster.control;
    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/components/agent");
    for file in ["rbac.yaml", "daemonset.yaml"] {
        let text = fs::read_to_string(component.join(file)).expect("a manifest is text");
        // As docs/operations.md says, for metrics.
        let last = "/host/proc/sys/net]";
        assert!(file != "daemonset.yaml" || text.contains(last));
        let text = text.replace(last, &format!("/host/proc/sys/net, --metrics, \"[::]:{METRICS}\"]"));
        control.host.write(&format!("/deploy/agent/{file}"), &text);
    }
    control.kubectl("apply -f /deploy/agent/rbac.yaml").expect_ok();
    control
        .patch("daemonset vlan-bridge --namespace kube-system", "/deploy/agent/daemonset.yaml")
        .expect_ok();
    roll_out(cluster);
    for machine in &cluster.nodes {
        let logs = logs(cluster, machine);
        assert!(logs.contains("has looked at the node for the first time"), "{logs}");
        assert!(logs.contains("unchanged /etc/cni/net.d/10-vlan136.conflist"), "{logs}");
    }
}

/// Waits until all agents run and are ready.
#[track_caller]
fn roll_out(cluster: &Cluster) {
    let line = "rollout status daemonset/vlan-bridge --namespace kube-system --timeout 60s";
    poll(LIMIT, "all agents are new and ready", || cluster.control.kubectl(line).ok());
}

/// What the agent of a node has logged.
fn logs(cluster: &Cluster, machine: &Machine) -> String {
    let selector = "--namespace kube-system --selector app.kubernetes.io/name=vlan-bridge";
    let pods =
        cluster.control.items(&format!("pods {selector} --field-selector spec.nodeName={}", machine.name));
    let name = pods[0]["metadata"]["name"].as_str().expect("a pod has a name");
    cluster.control.kubectl(&format!("logs --namespace kube-system {name}")).expect_ok().stdout
}

/// Waits for an event with a reason of an object.
#[track_caller]
fn await_event(cluster: &Cluster, reason: &str, object: &str) -> Value {
    let line = format!("events --field-selector reason={reason},involvedObject.name={object}");
    let found = || cluster.control.items(&line).into_iter().next();
    poll(LIMIT, &format!("an event {reason} of {object}"), || found().is_some());
    found().expect("it was there")
}

/// Everything in nftables is gone, kube-proxy's rules too. Each program restores its own.
pub fn restores(cluster: &Cluster) {
    let (control, machine) = (&cluster.control, &cluster.nodes[0]);
    control.apply(&pod("guarded", machine.name, spec("/")));
    let ip = address(&ready(cluster, "guarded"));
    let guards = || machine.node.run("nft list table bridge vlan-bridge");
    let before = guards().expect_ok().stdout;
    machine.node.nft("flush ruleset");
    assert!(!guards().ok());
    poll(LIMIT, "the guards again", || guards().stdout == before);
    let event = await_event(cluster, "Restored", machine.name);
    assert!(event["message"].as_str().unwrap_or_default().starts_with("restored "), "{event}");
    assert_eq!(event["involvedObject"]["kind"], "Node");
    let shown = control.kubectl(&format!("describe node {}", machine.name)).expect_ok().stdout;
    assert!(shown.contains("Restored"), "{shown}");
    poll(LIMIT, "kube-proxy's rules again", || {
        machine.node.run("nft list ruleset").stdout.contains("KUBE-SERVICES")
    });
    assert!(greets(&cluster.router, SocketAddr::new(ip, PORT)));
    assert!(control.fetch("guarded", "10.96.0.1:443".parse().expect("an address"), "/").ok());
}

/// Another machine on the pods' network takes the address of a pod.
pub fn names_the_pod(cluster: &Cluster) {
    const OTHER: &str = "02:00:00:00:00:09";
    let IpAddr::V4(ip) = address(&ready(cluster, "guarded")) else { panic!("the pods have IPv4") };
    cluster.router.send_frame("pods", &arp_announcement(ip, OTHER));
    let event = await_event(cluster, "AddressConflict", "guarded");
    let message = event["message"].as_str().unwrap_or_default();
    assert!(message.contains(OTHER) && message.contains(&ip.to_string()), "{event}");
    assert_eq!(event["involvedObject"]["namespace"], "default");
    let shown = cluster.control.kubectl("describe pod guarded").expect_ok().stdout;
    note(&format!("`kubectl describe pod` shows it: {}", shown.contains("AddressConflict")));
}

/// A machine outside the pods' network asks each node, as Prometheus does.
pub fn is_scraped(cluster: &Cluster) {
    let scrape =
        |machine: &Machine| Scrape::over_tcp(&cluster.router, &format!("{}:{METRICS}", machine.address));
    for machine in &cluster.nodes {
        // The addresses are read every few seconds.
        poll(LIMIT, "the count of addresses in use", || {
            let used = machine.containerd.leases("vlan136").len() as f64;
            scrape(machine).value("vlan_bridge_addresses", &["state=\"used\""]) == Some(used)
        });
    }
    let first = scrape(&cluster.nodes[0]);
    for (name, labels) in [
        ("vlan_bridge_calls_total", &["verb=\"ADD\"", "outcome=\"ok\""][..]),
        ("vlan_bridge_repairs_total", &["kind=\"guard\""]),
        ("vlan_bridge_agent_reports_total", &["reason=\"AddressConflict\""]),
    ] {
        assert!(first.value(name, labels).is_some_and(|value| value > 0.0), "{name}: {first:?}");
    }
}

/// The agents are replaced one after the other while pods come and go.
pub fn rolls(cluster: &Cluster) {
    let control = &cluster.control;
    control.kubectl("rollout restart daemonset/vlan-bridge --namespace kube-system").expect_ok();
    for replicas in [20, 50] {
        control.kubectl(&format!("scale deployment fifty --replicas {replicas}")).expect_ok();
    }
    roll_out(cluster);
    all_answer(cluster, &all_fifty(cluster));
}
