//! Pods' ports after a program has taken them out of their bridge, or has deleted the bridge. Any later call
//! restores them.

use integration::{Node, Outcome, Pod, Site, set_keys};
use serde_json::json;

/// The bridge that a port is in.
fn bridge_of(node: &Node, port: &str) -> Option<String> {
    node.ip_json(&format!("link show dev {port}"))[0]["master"].as_str().map(str::to_owned)
}

/// Changes that NetworkManager, nmstate and ifreload make, and common manual ones.
#[test]
fn a_port_that_was_taken_out_or_lost_its_bridge_is_back_with_the_next_call_of_any() {
    for harm in ["link set PORT nomaster", "link del br136"] {
        for keys in [json!({}), json!({"macspoofchk": true, "portIsolation": true, "hairpinMode": true})] {
            let (site, pods, other) = (Site::new(), [Pod::new(), Pod::new()], Pod::new());
            site.give_node_its_own_network();
            let mut list = site.list();
            set_keys(&mut list["plugins"][0], &keys);
            let plugin = site.node.plugin(&list);
            // Another network of the node. Its calls restore the port too.
            let local = json!({"type": "vlan-bridge", "bridge": "cni0",
                "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
            let local = site.node.plugin(&site.node.list("local", &[local]));
            let results = pods.each_ref().map(|pod| plugin.add(&pod.eth0()).result());
            let own = results[0].host_interface();
            let valid = json!([pods[0].eth0().valid(), pods[1].eth0().valid(), other.eth0().valid()]);
            let calls: [&dyn Fn() -> Outcome; 5] = [
                &|| local.add(&other.interface("net1")),
                &|| local.del(&other.interface("net1")),
                &|| plugin.add(&other.eth0()),
                &|| plugin.clone().with("cni.dev/valid-attachments", valid.clone()).gc(),
                &|| plugin.del(&other.eth0()),
            ];
            for call in calls {
                site.node.ip(&harm.replace("PORT", own));
                assert_eq!(bridge_of(&site.node, own), None);
                assert!(!pods[0].pings(Site::GATEWAY), "{harm}: nothing is shown");
                assert_eq!(plugin.check(&pods[0].eth0(), &results[0]).error_code(), 101);
                let told = call().expect_ok();
                assert!(told.stderr.contains("it was in no bridge, and belongs to br136"), "{harm}: {told}");
                for (pod, result) in pods.iter().zip(&results) {
                    assert!(site.router.pings(&result.address()), "{harm} {keys}");
                    assert!(pod.pings(Site::NODE[0]), "{harm} {keys}");
                    // A new bridge has the MAC of the uplink, as the old one had.
                    plugin.check(&pod.eth0(), result).expect_ok();
                }
            }
            for pod in &pods {
                plugin.del(&pod.eth0()).expect_ok();
            }
        }
    }
}

#[test]
fn what_an_operator_has_put_elsewhere_or_detached_stays_where_it_is() {
    let (site, pods) = (Site::new(), [Pod::new(), Pod::new()]);
    let plugin = site.node.plugin(&site.list());
    let results = pods.each_ref().map(|pod| plugin.add(&pod.eth0()).result());
    let own = results[0].host_interface();
    site.node.ip(&format!("link add br9 type bridge\nlink set {own} master br9"));
    let later = Pod::new();
    plugin.add(&later.eth0()).expect_ok();
    assert_eq!(bridge_of(&site.node, own).as_deref(), Some("br9"));
    plugin.del(&pods[0].eth0()).expect_ok();
    plugin.add(&pods[0].eth0()).expect_ok();
    assert_eq!(bridge_of(&site.node, own).as_deref(), Some("br136"));
}

/// A record may be of a release that accepted other keys of IPAM.
#[test]
fn a_port_whose_recorded_ipam_would_be_refused_by_now_is_restored() {
    let (site, pod) = (Site::new(), Pod::new());
    let plugin = site.node.plugin(&site.list());
    let result = plugin.add(&pod.eth0()).result();
    let own = result.host_interface();
    let path = format!("/run/vlan-bridge/ports/{}/br136/{own}", site.node.cookie());
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["config"]["ipam"]["subnet"] = 7.into();
    record["config"]["ipam"]["gateway"] = "nowhere".into();
    std::fs::write(&path, record.to_string()).unwrap();
    site.node.ip(&format!("link set {own} nomaster"));
    let later = Pod::new();
    plugin.add(&later.eth0()).expect_ok();
    assert_eq!(bridge_of(&site.node, own).as_deref(), Some("br136"));
    plugin.check(&pod.eth0(), &result).expect_ok();
}

/// Whether its own network's call restores it, or another's.
#[test]
fn a_gateways_bridge_that_was_deleted_is_back_with_its_address_and_its_mac() {
    let (node, pod) = (Node::new("node"), Pod::new());
    let conf = json!({"type": "vlan-bridge", "isDefaultGateway": true,
        "ipam": {"type": "vlan-bridge-ipam", "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd00:22::/64"}]]}});
    let plugin = node.plugin(&node.list("local", &[conf]));
    let result = plugin.add(&pod.eth0()).result();
    let other = node.plugin(&node.list(
        "other",
        &[json!({"type": "vlan-bridge", "bridge": "cni1",
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.23.0.0/24"}})],
    ));
    for call in [&other, &plugin] {
        node.ip("link del cni0");
        call.add(&Pod::new().eth0()).expect_ok();
        // The pod has the MAC in its neighbour entries.
        plugin.check(&pod.eth0(), &result).expect_ok();
        for gateway in ["10.22.0.1", "fd00:22::1"] {
            pod.wait_for(gateway);
        }
    }
}

/// The record of a port is deleted with its attachment.
#[test]
fn a_record_goes_with_its_attachment() {
    let (site, pods) = (Site::new(), [Pod::new(), Pod::new()]);
    let folder = format!("/run/vlan-bridge/ports/{}", site.node.cookie());
    let plugin = site.node.plugin(&site.list());
    let records = || std::fs::read_dir(format!("{folder}/br136")).map_or(0, Iterator::count);
    for pod in &pods {
        plugin.add(&pod.eth0()).expect_ok();
    }
    assert_eq!(records(), 2);
    plugin.del(&pods[0].eth0()).expect_ok();
    assert_eq!(records(), 1);
    let [_, dead] = pods;
    let eth0 = dead.eth0();
    drop(dead);
    // The first call removes it: its own DEL, or a call of another pod.
    plugin.add(&Pod::new().eth0()).expect_ok();
    plugin.del(&eth0).expect_ok();
    plugin.clone().with("cni.dev/valid-attachments", json!([])).gc().expect_ok();
    assert_eq!(records(), 0);
}
