//! A pod and its own node after the bridge was down. The kernel then removes the host routes.

use crate::host_access::{dual_stack, site, talk};
use integration::{Capture, Frame, Outcome, Pod, Site, Snapshot, ip};
use serde_json::json;
use std::path::PathBuf;

/// As an operator or a restarted network manager does.
#[test]
fn a_bridge_that_was_down_has_its_pods_ways_again_with_the_next_call_of_any() {
    for guard in [true, false] {
        let (site, pods) = (site(), [Pod::new(), Pod::new()]);
        let mut list = dual_stack(&site);
        list["plugins"][0]["guard"] = json!(guard);
        let (client, plugin) = (site.node.client(&list), site.node.plugin(&list));
        let first = Pod::new();
        client.add(&first.eth0()).expect_ok();
        client.del(&first.eth0()).expect_ok();
        let before = Snapshot::of(&site.node);
        let records = PathBuf::from(format!("/run/vlan-bridge/ways/{}", site.node.cookie()));
        assert!(!records.exists());
        let results = pods.each_ref().map(|pod| client.add(&pod.eth0()).result());
        // Another network of the node. Its calls fix it too.
        let mut nat = site.node.list(
            "local",
            &[json!({"type": "vlan-bridge", "bridge": "cni0", "ipam": {
            "type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}})],
        );
        nat["plugins"][0]["ipam"]["dataDir"] = list["plugins"][0]["ipam"]["dataDir"].clone();
        let third = Pod::new();
        let calls: [&dyn Fn() -> Outcome; 4] = [
            &|| site.node.client(&nat).add(&third.interface("net1")),
            &|| site.node.client(&nat).del(&third.interface("net1")),
            &|| client.add(&third.eth0()),
            &|| {
                let valid = json!([pods[0].eth0().valid(), pods[1].eth0().valid(), third.eth0().valid()]);
                plugin.clone().with("cni.dev/valid-attachments", valid).gc()
            },
        ];
        for call in calls {
            for pod in &pods {
                client.check(&pod.eth0()).expect_ok();
            }
            site.node.ip("link set br136 down\nlink set br136 up");
            assert_eq!(client.check(&pods[0].eth0()).error_code(), 101);
            let router = Capture::start(&site.router, "port");
            call().expect_ok();
            for (pod, result) in pods.iter().zip(&results) {
                talk(&site.node, pod, &result.addresses());
                client.check(&pod.eth0()).expect_ok();
            }
            let of_node = |frame: &Frame| Site::NODE.iter().any(|address| frame.mentions(ip(address)));
            assert!(pods[0].pings(Site::GATEWAY));
            let strays: Vec<Frame> = router.frames().into_iter().filter(of_node).collect();
            assert!(strays.is_empty(), "{strays:?}");
            let is_heard = router.frames().iter().any(|frame| frame.concerns(Site::GATEWAY));
            assert!(is_heard, "the capture is deaf");
        }
        for pod in pods.iter().chain([&third]) {
            client.del(&pod.eth0()).expect_ok();
        }
        assert!(!records.exists());
        site.node.ip("link del cni0");
        before.assert_unchanged(&site.node);
    }
}

/// The number of our routes on the node.
fn routes(site: &Site) -> usize {
    site.node.ip_json("route show proto 117").as_array().map_or(0, Vec::len)
}

/// An interface is configured again while a pod starts, for example by DHCP. All earlier pods are then
/// reachable again, not only one of each device.
#[test]
fn an_address_of_the_node_that_was_gone_leads_to_every_pod_again() {
    let (site, pods) = (site(), [Pod::new(), Pod::new(), Pod::new(), Pod::new()]);
    site.node.ip("link add sto0 type veth peer name sto1\nlink set sto0 up\nlink set sto1 up\naddr add 10.53.0.11/24 dev sto0");
    let client = site.node.client(&site.list());
    let mut results = Vec::new();
    let mut add = |pod: &Pod| results.push(client.add(&pod.eth0()).result());
    add(&pods[0]);
    add(&pods[1]);
    let [v4, _] = Site::NODE;
    site.node.ip(&format!("addr del {v4}/24 dev nic1"));
    assert_eq!(routes(&site), 0, "the kernel keeps the routes: nothing is shown");
    add(&pods[2]);
    site.node.ip(&format!("addr add {v4}/24 dev nic1\nroute add default via 10.51.0.1"));
    add(&pods[3]);
    assert_eq!(routes(&site), 4);
    // The third pod has the node's former address.
    for index in [0, 1, 3] {
        talk(&site.node, &pods[index], &results[index].addresses());
    }
    for pod in &pods {
        client.check(&pod.eth0()).expect_ok();
    }
}

/// Each call checks, and none logs or repairs again.
#[test]
fn a_node_with_another_address_for_good_repairs_once() {
    let (site, pod, second) = (site(), Pod::new(), Pod::new());
    let client = site.node.client(&site.list());
    client.add(&pod.eth0()).expect_ok();
    let [v4, _] = Site::NODE;
    site.node.ip(&format!(
        "addr del {v4}/24 dev nic1\naddr add 10.51.0.99/24 dev nic1\nroute add default via 10.51.0.1"
    ));
    let told = client.add(&second.eth0()).expect_ok();
    assert!(
        told.stderr.contains(
            "restored the host routes of br136: the node lacked routes or neighbour entries to 1 pods"
        ),
        "{told}"
    );
    assert_eq!(routes(&site), 2);
    let told = client.del(&second.eth0()).expect_ok();
    assert!(!told.stderr.contains("routes to"), "{told}");
    // The node has no route to a pod, and the calls do not log that each time.
    site.node.ip("addr del 10.51.0.99/24 dev nic1");
    for outcome in [client.add(&second.eth0()), client.del(&second.eth0())] {
        assert!(outcome.ok() && !outcome.stderr.contains("routes to"), "{outcome}");
    }
}
