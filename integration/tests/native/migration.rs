//! A node changes from the reference plugins to ours, and back, with a real runtime and with pods that keep
//! running.

use integration::{Containerd, Release, Sandbox, Site, Snapshot, greets, peers, poll, product};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::slice;
use std::time::Duration;

/// The time limit for a runtime to notice a change.
const LIMIT: Duration = Duration::from_secs(30);
/// The network for the reference plugins, and for ours. Both lists have the same name.
const OLD: &str = "/etc/cni/net.d/00-vlan136.conflist";
const NEW: &str = "/etc/cni/net.d/10-vlan136.conflist";
/// The list for all nodes, for `install`.
const TEMPLATE: &str = "/etc/10-vlan136.conflist";
/// The commands that remove the host routes of our pods after the reference plugins have detached them.
const LEFT: [&str; 3] =
    ["ip route flush proto 117", "ip -6 route flush proto 117", "ip neigh flush dev br136 nud permanent"];
/// The folder of the unpacked release.
const UNPACKED: &str = "/opt/vlan-bridge";

fn reference() -> Value {
    let bridge = json!({
        "type": "bridge", "bridge": "br136",
        "ipam": {
            "type": "host-local", "subnet": "172.20.56.0/24", "rangeStart": "172.20.56.16",
            "rangeEnd": "172.20.56.31", "gateway": Site::GATEWAY, "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    json!({"cniVersion": "1.0.0", "name": Site::NETWORK, "plugins": [bridge]})
}

/// A node whose uplink is a port of a bridge that its scripts made, with the reference plugins and ours.
fn node_of_old(site: &Site, release: Release) -> Containerd {
    site.give_node_its_own_network();
    // The bridge has its own MAC. Our first ADD would pin a MAC that the kernel chose (`bridge.rs`), which
    // would change the snapshot.
    let mac = "02:00:00:00:01:36";
    site.node.ip(&format!(
        "link add br136 address {mac} type bridge\nlink set br136 up\nlink set nic0 master br136"
    ));
    let containerd = Containerd::start(&site.node, release);
    containerd.uninstall();
    for name in ["bridge", "host-local"] {
        fs::copy(peers().join(name), containerd.path("/opt/cni/bin").join(name)).unwrap();
    }
    fs::create_dir_all(containerd.path(UNPACKED)).unwrap();
    for name in ["vlan-bridge", "vlan-bridge-ipam", "vlan-bridgectl"] {
        fs::copy(product().join(name), containerd.path(UNPACKED).join(name)).unwrap();
    }
    let mut conf = site.conf();
    conf["ipam"].as_object_mut().unwrap().remove("slice");
    let template = json!({"cniVersion": "1.0.0", "name": Site::NETWORK, "plugins": [conf]});
    fs::write(containerd.path(TEMPLATE), template.to_string()).unwrap();
    back(&containerd);
    containerd
}

/// The reference plugins' list is the only list.
fn back(containerd: &Containerd) {
    containerd.set_lists(slice::from_ref(&reference()));
    assert!(containerd.path(OLD).exists() && !containerd.path(NEW).exists());
    reread(containerd);
}

/// A restart, after which the runtime certainly knows the current list.
fn reread(containerd: &Containerd) {
    containerd.restart("TERM");
    poll(LIMIT, "the network is ready", || containerd.cri().network_ready().is_ok_and(|(ready, _)| ready));
}

#[track_caller]
fn run(containerd: &Containerd, name: &str) -> Sandbox {
    containerd.cri().run(name, &[]).expect("RunPodSandbox")
}

/// Exactly these pods have addresses, each its own, and each answers.
#[track_caller]
fn alive(site: &Site, containerd: &Containerd, pods: &[&Sandbox]) {
    let ips: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.ip).collect();
    assert_eq!(ips.len(), pods.len(), "{ips:?}");
    assert_eq!(containerd.leases(Site::NETWORK), ips.iter().copied().collect::<Vec<_>>());
    for ip in ips {
        poll(LIMIT, &format!("an answer from {ip}"), || greets(&site.router, (ip, 80).into()));
    }
}

#[test]
fn a_node_with_running_pods_goes_over_to_ours_and_back() {
    for release in Release::ALL {
        let site = Site::new();
        let containerd = node_of_old(&site, release);
        containerd.remove(&run(&containerd, "first"));
        let before = Snapshot::of(&site.node);
        let old = ["old1", "old2"].map(|name| run(&containerd, name));
        alive(&site, &containerd, &[&old[0], &old[1]]);

        fs::remove_file(containerd.path(OLD)).unwrap();
        let install =
            format!("{UNPACKED}/vlan-bridgectl install --network {TEMPLATE} --slice 172.20.56.16/28");
        containerd.run(&install).expect_ok();
        reread(&containerd);
        let new = ["new1", "new2"].map(|name| run(&containerd, name));
        alive(&site, &containerd, &[&old[0], &old[1], &new[0], &new[1]]);
        containerd.remove(&old[0]);
        containerd.remove(&new[0]);
        alive(&site, &containerd, &[&old[1], &new[1]]);

        fs::remove_file(containerd.path(NEW)).unwrap();
        back(&containerd);
        let late = run(&containerd, "late");
        alive(&site, &containerd, &[&old[1], &new[1], &late]);
        for pod in [&old[1], &new[1], &late] {
            containerd.remove(pod);
        }
        alive(&site, &containerd, &[]);
        containerd.run(&format!("{UNPACKED}/vlan-bridgectl uninstall")).expect_ok();
        assert!(!containerd.path("/opt/cni/bin/vlan-bridge").exists());
        // The reference plugins do not remove our host routes, so the commands of docs/operations.md do.
        for line in LEFT {
            containerd.run(line).expect_ok();
        }
        before.assert_unchanged(&site.node);
    }
}
