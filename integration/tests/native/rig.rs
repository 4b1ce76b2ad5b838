//! The test network itself on the running kernel, tested with the reference plugins, whose behaviour is
//! known.

use integration::{Capture, Namespace, Pod, Site, Snapshot, run};
use serde_json::{Value, json};
use std::process::Command;

/// The reference bridge and host-local on the site's NIC-less bridge.
fn reference(site: &Site) -> Value {
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
    });
    let tuning = json!({"type": "tuning", "capabilities": {"mac": true}});
    site.node.list("reference", &[bridge, tuning])
}

#[test]
fn the_client_runs_every_verb_of_a_chain() {
    let site = Site::new();
    let client = site.node.client(&reference(&site));
    client.status().expect_ok();
    let pod = Pod::new();
    let eth0 = pod.eth0().capabilities(json!({"mac": "02:00:00:00:00:07"}));
    let added = client.add(&eth0);
    assert_eq!(added.json()["cniVersion"], "1.1.0");
    assert_eq!(added.result().cidr(), "10.1.0.2/24");
    let links = pod.ip_json("link show dev eth0");
    assert_eq!(links[0]["address"], "02:00:00:00:00:07", "capability arguments reach the plugins");
    assert_eq!(site.node.leases("reference"), ["10.1.0.2"]);
    assert!(pod.pings("10.1.0.1"));

    client.check(&eth0).expect_ok();
    pod.ip("addr flush dev eth0");
    assert!(!client.check(&eth0).ok());

    // GC first deletes the cached attachments that are not listed as valid.
    client.gc(Some(&[&eth0])).expect_ok();
    assert!(pod.has_link("eth0"));
    client.gc(Some(&[])).expect_ok();
    assert!(!pod.has_link("eth0"));
    client.del(&eth0).expect_ok();
    assert!(site.node.leases("reference").is_empty());
}

#[test]
fn errors_come_through_the_client_as_the_plugin_gave_them() {
    let site = Site::new();
    let mut list = reference(&site);
    list["plugins"][0]["ipam"]["subnet"] = json!("10.1.0.0/33");
    let outcome = site.node.client(&list).add(&Pod::new().eth0());
    assert!(outcome.error_text().contains("10.1.0.0/33"), "{outcome}");
}

#[test]
fn a_plugin_can_be_called_by_hand() {
    let site = Site::new();
    let plugin = site.node.plugin(&reference(&site));
    assert!(plugin.version().json()["supportedVersions"].as_array().unwrap().iter().any(|v| v == "1.1.0"));
    let pod = Pod::new();
    let outcome = plugin.call("ADD", &pod.eth0()).without_env("CNI_IFNAME").run();
    assert_eq!(outcome.error_code(), 4, "{outcome}");
    let result = plugin.add(&pod.eth0()).result();
    plugin.check(&pod.eth0(), &result).expect_ok();
    plugin.del(&pod.eth0().without_netns()).expect_ok();
    assert!(site.node.leases("reference").is_empty());
}

#[test]
fn what_the_rig_makes_goes_away_with_it() {
    let namespace = Namespace::new("short");
    let path = namespace.path();
    assert!(path.exists());
    drop(namespace);
    assert!(!path.exists());
    let failed = std::thread::spawn(|| {
        let site = Site::new();
        let paths = (site.node.path(), site.node.folder().path().to_owned());
        std::panic::panic_any(paths);
    })
    .join()
    .unwrap_err();
    let (namespace, folder) =
        failed.downcast::<(std::path::PathBuf, std::path::PathBuf)>().map(|paths| *paths).unwrap();
    assert!(!namespace.exists() && !folder.exists());
}

#[test]
fn the_site_reaches_its_router_and_the_sniffer_sees_it() {
    let site = Site::new();
    let capture = Capture::start(&site.router, "port");
    assert!(capture.frames().iter().all(|frame| !frame.is_arp()));
    site.node.ip("addr add 172.20.56.9/24 dev nic0");
    site.node.wait_for(Site::GATEWAY);
    let frame = capture.wait_for("an ARP request", |frame| frame.is_arp() && !frame.outgoing);
    assert_eq!(frame.arp(), Some(("172.20.56.9".parse().unwrap(), "172.20.56.1".parse().unwrap())));
    assert!(frame.vlans.is_empty());
}

#[test]
fn a_snapshot_compares_every_kind_of_thing() {
    let node = Namespace::new("node");
    node.ip("link add left type veth peer name right\nlink set left up\nlink set right up\naddr add 10.2.0.1/24 dev left");
    let before = Snapshot::of(&node);
    before.assert_unchanged(&node);
    node.ip("link set right alias mine\naddr add 10.2.0.2/24 dev left\nroute add 10.3.0.0/24 via 10.2.0.9\n\
         rule add from 10.2.0.2 lookup 99\nneigh add 10.2.0.9 lladdr 02:00:00:00:00:09 dev left nud permanent");
    node.nft("table inet t {\n chain c {\n accept\n }\n}");
    node.set_sysctl("net/ipv4/ip_forward", if node.sysctl("net/ipv4/ip_forward") == "0" { "1" } else { "0" });
    let difference = before.difference(&Snapshot::of(&node)).join("\n");
    for part in ["mine", "10.2.0.2", "10.3.0.0/24", "rule", "neighbour", "nft table inet t", "ip_forward"] {
        assert!(difference.contains(part), "{part} is missing in\n{difference}");
    }
}

#[test]
#[should_panic(expected = "its output is still open")]
fn a_program_that_leaves_its_output_open_is_found_out() {
    run(Command::new("sh").args(["-c", "sleep 6 &"]));
}
