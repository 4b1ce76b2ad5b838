//! Real container runtimes on nodes with bonds. The native suite has the other tests of runtimes.

use integration::{
    BondMode, BondedNode, Capture, Containerd, DataCenter, Host, Podman, Release, Snapshot, VLANS, greets,
    poll, run,
};
use serde_json::Value;
use std::net::IpAddr;
use std::slice;
use std::time::Duration;

/// An emulated runtime takes its time.
const LIMIT: Duration = Duration::from_secs(120);

const NETWORK: &str = "vlan136";

/// The node's list with leases in their default folder, in a version that every runtime supports.
fn list(node: &BondedNode<'_>) -> Value {
    let mut list = node.list136();
    list["cniVersion"] = "1.0.0".into();
    if let Some(ipam) = list["plugins"][0]["ipam"].as_object_mut() {
        ipam.remove("dataDir");
    }
    list
}

/// The router reaches the server in each container, in frames with the VLAN's tag.
#[track_caller]
fn are_hosts_of_the_vlan(datacenter: &DataCenter, trunk: &Capture, addresses: &[IpAddr]) {
    for ip in addresses {
        poll(LIMIT, &format!("an answer from {ip}"), || greets(datacenter.router(), (*ip, 80).into()));
        let (ip, vlan) = (ip.to_string(), VLANS[2].0);
        trunk.wait_for("its frames on the VLAN", |frame| frame.concerns(&ip) && frame.vlans == [vlan]);
    }
}

/// The README's quick start: one line installs the unpacked files, and the next runs a container.
#[test]
fn containers_of_podman_are_hosts_of_the_vlan() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let podman = Podman::new(&node);
    podman.unpack_product();
    let slice = node.slice();
    podman
        .run(&format!(
            "vlan-bridgectl install --name {NETWORK} --master bond0 --vlan 136 --subnet 172.20.56.0/24 \
             --gateway 172.20.56.1 --slice {slice}"
        ))
        .expect_ok();
    podman
        .podman(&format!(
            "run --rm --cap-add NET_RAW --network {NETWORK} --entrypoint /bin/busybox localhost/pod:1 \
             ping -c 1 172.20.56.1"
        ))
        .expect_ok();
    let before = Snapshot::of(&node);

    let trunk = Capture::start(datacenter.tor_a(), "router");
    for name in ["one", "two"] {
        podman.run_container(name, NETWORK, "").expect_ok();
    }
    let leases = podman.leases(NETWORK);
    assert_eq!(leases.len(), 2, "{leases:?}");
    are_hosts_of_the_vlan(&datacenter, &trunk, &leases);
    podman.podman("rm --force --time 0 one two").expect_ok();
    assert!(podman.leases(NETWORK).is_empty());
    before.assert_unchanged(&node);
}

#[test]
fn sandboxes_of_containerd_are_hosts_of_the_vlan() {
    let datacenter = DataCenter::new();
    let nodes = datacenter.nodes([BondMode::RoundRobin, BondMode::Lacp]);
    let trunk = Capture::start(datacenter.tor_a(), "router");
    for (node, release) in nodes.iter().zip(Release::ALL) {
        let containerd = Containerd::start(node, release);
        containerd.set_lists(slice::from_ref(&list(node)));
        let cri = containerd.cri();
        poll(LIMIT, "the network is ready", || cri.network_ready().expect("Status").0);
        containerd.remove(&cri.run("first", &[]).expect("RunPodSandbox"));
        let before = Snapshot::of(node);
        let sandboxes = ["one", "two"].map(|name| cri.run(name, &[]).expect("RunPodSandbox"));
        are_hosts_of_the_vlan(&datacenter, &trunk, &sandboxes.each_ref().map(|sandbox| sandbox.ip));
        containerd.restart("KILL");
        sandboxes.iter().for_each(|sandbox| containerd.remove(sandbox));
        assert!(containerd.leases(NETWORK).is_empty(), "{release:?}: {:?}", containerd.leases(NETWORK));
        before.assert_unchanged(node);
    }
}

#[test]
fn pods_of_cnitool_are_hosts_of_the_vlan() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let host = Host::bare(&node);
    host.install_cnitool();
    host.set_lists(slice::from_ref(&list(&node)));
    let trunk = Capture::start(datacenter.tor_a(), "router");
    host.write("/www/index.html", "a pod\n");
    let cnitool = |verb: &str| {
        let mut command = host.command("cnitool");
        run(command.args([verb, NETWORK, "/run/netns/one"]).env("CNI_PATH", "/opt/cni/bin"))
    };
    host.run("ip netns add one").expect_ok();
    cnitool("add").expect_ok();
    cnitool("check").expect_ok();
    host.start("httpd", "ip netns exec one busybox httpd -f -p 80 -h /www");
    are_hosts_of_the_vlan(&datacenter, &trunk, &host.leases(NETWORK));
    host.stop("httpd", "TERM");
    cnitool("del").expect_ok();
    assert!(host.leases(NETWORK).is_empty());
}
