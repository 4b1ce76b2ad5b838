//! The steps about many pods, and about nodes that are drained and uncordoned.

use crate::cluster::Cluster;
use crate::kubectl::LIMIT;
use crate::machine::Machine;
use crate::pods::{PORT, address, deployment, pod, spec};
use crate::steps::{network, ready};
use integration::{greets, note, poll, product, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// Waits until the fifty are ready, and returns them.
#[track_caller]
pub fn all_fifty(cluster: &Cluster) -> Vec<Value> {
    let control = &cluster.control;
    poll(LIMIT, "fifty pods are ready", || control.get("deployment fifty")["status"]["readyReplicas"] == 50);
    let pods = control.items("pods --selector app=fifty --field-selector status.phase=Running");
    // A terminating pod is still listed.
    pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
}

/// The pods on a node.
fn on<'a>(pods: &'a [Value], machine: &Machine) -> Vec<&'a Value> {
    pods.iter().filter(|pod| pod["spec"]["nodeName"] == machine.name).collect()
}

/// All answer, each from its own address in its node's slice.
#[track_caller]
pub fn all_answer(cluster: &Cluster, pods: &[Value]) {
    for machine in &cluster.nodes {
        let node = cluster.control.get(&format!("node {}", machine.name));
        let slice = node["spec"]["podCIDR"].as_str().expect("a node has a slice");
        for ip in on(pods, machine).into_iter().map(address) {
            assert!(is_within(ip, slice), "{ip} is not of {slice}");
        }
    }
    let addresses: BTreeSet<IpAddr> = pods.iter().map(address).collect();
    assert_eq!((pods.len(), addresses.len()), (50, 50));
    for ip in addresses {
        assert!(greets(&cluster.router, SocketAddr::new(ip, PORT)), "{ip} does not answer");
    }
}

fn is_within(ip: IpAddr, subnet: &str) -> bool {
    let (network, length) = subnet.split_once('/').expect("a subnet has a length");
    let (network, length): (Ipv4Addr, u32) = (network.parse().expect("IPv4"), length.parse().expect("bits"));
    let IpAddr::V4(ip) = ip else { return false };
    (ip.to_bits() ^ network.to_bits()) >> (32 - length) == 0
}

/// Over both nodes.
pub fn fifty(cluster: &Cluster) {
    let began = Instant::now();
    cluster.control.apply(&deployment("fifty", 50));
    let pods = all_fifty(cluster);
    note(&format!("50 pods are ready after {:.0} s", began.elapsed().as_secs_f64()));
    for machine in &cluster.nodes {
        assert!(!on(&pods, machine).is_empty(), "no pod on {}", machine.name);
    }
    all_answer(cluster, &pods);
}

/// The pods of the second node move to the first, which has room for all of them.
pub fn drain(cluster: &Cluster) {
    let (control, [kept, drained]) = (&cluster.control, &cluster.nodes);
    let name = drained.name;
    control
        .kubectl(&format!("drain {name} --ignore-daemonsets --force --delete-emptydir-data --timeout 110s"))
        .expect_ok();
    drained.await_empty();
    let pods = all_fifty(cluster);
    assert_eq!(on(&pods, kept).len(), 50);
    all_answer(cluster, &pods);
    control.kubectl(&format!("uncordon {name}")).expect_ok();
    control.apply(&pod("again", name, spec("/")));
    let ip = address(&ready(cluster, "again"));
    assert!(greets(&cluster.router, SocketAddr::new(ip, PORT)));
}

/// A restart of kubelet and containerd does not affect pods, and the next pod starts.
pub fn crash(cluster: &Cluster) {
    let (control, machine) = (&cluster.control, &cluster.nodes[0]);
    let before = machine.containerd.leases("vlan136");
    machine.crash();
    let name = "after-crash";
    control.apply(&pod(name, machine.name, spec("/")));
    let next = address(&ready(cluster, name));
    all_answer(cluster, &all_fifty(cluster));
    let after = machine.containerd.leases("vlan136").into_iter().filter(|ip| *ip != next);
    assert_eq!(after.collect::<Vec<_>>(), before);
}

/// Kubelet swaps a link in the DaemonSet's volume, and the main container installs again.
pub fn change(cluster: &Cluster) {
    const MTU: u32 = 1400;
    let control = &cluster.control;
    control.host.write("/deploy/base/configmap.yaml", &network(Some(MTU)).to_string());
    control.kubectl("apply -k /deploy/base").expect_ok();
    for machine in &cluster.nodes {
        let path = machine.containerd.path("/etc/cni/net.d/10-vlan136.conflist");
        let installed = || fs::read_to_string(&path).unwrap_or_default().contains(&MTU.to_string());
        poll(LIMIT, &format!("the change on {}", machine.name), installed);
        // containerd watches the folder, but does not report which list it has read.
        let mut count = 0;
        poll(LIMIT, &format!("a pod on {} with the new MTU", machine.name), || {
            count += 1;
            let name = format!("changed-{}-{count}", machine.name);
            control.apply(&pod(&name, machine.name, spec("/")));
            ready(cluster, &name);
            let told = control.busybox(&name, "cat /sys/class/net/eth0/mtu").expect_ok();
            told.stdout.trim() == MTU.to_string()
        });
    }
}

/// README of `deploy/`: the manifests are deleted, then each node is uninstalled.
pub fn uninstall(cluster: &Cluster) {
    let control = &cluster.control;
    control.kubectl("delete -k /deploy/base --timeout 110s").expect_ok();
    control.kubectl("delete -f /deploy/agent/rbac.yaml").expect_ok();
    let selector = "pods --namespace kube-system --selector app.kubernetes.io/name=vlan-bridge";
    poll(LIMIT, "the end of the agents", || control.items(selector).is_empty());
    for machine in &cluster.nodes {
        let host = &machine.containerd;
        fs::copy(product().join("vlan-bridgectl"), host.path("/vlan-bridgectl"))
            .expect("the host is writable");
        run(host.command("/vlan-bridgectl").arg("uninstall")).expect_ok();
        let names: Vec<String> = fs::read_dir(host.path("/opt/cni/bin"))
            .expect("the folder was there before")
            .flatten()
            .map(|entry| entry.file_name().display().to_string())
            .collect();
        assert_eq!(names, ["loopback"]);
        assert!(!host.path("/etc/cni/net.d/10-vlan136.conflist").exists());
        assert!(!machine.node.has_link("br136"));
        let rules = machine.node.run("nft list ruleset").expect_ok().stdout;
        assert!(!rules.contains("vlan-bridge"), "{rules}");
        let folder = host.path(&format!("/run/vlan-bridge/agent/{}", machine.node.cookie()));
        assert!(!folder.exists(), "the agent's folder is left");
    }
}
