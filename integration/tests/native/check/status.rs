//! STATUS says whether an ADD would work now. An ADD onto an uplink that is down still works.

use integration::{Pod, Site, Snapshot, merge};
use serde_json::{Value, json};
use std::time::Duration;

#[track_caller]
fn refuses(site: &Site, list: &Value, code: u64, parts: &[&str]) {
    let before = Snapshot::of(&site.node);
    let outcome = site.node.plugin(list).status();
    assert_eq!(outcome.error_code(), code, "{outcome}");
    for part in parts {
        assert!(outcome.error_text().contains(part), "{part} is not in {outcome}");
    }
    assert_eq!(site.node.client(list).status().error_code(), code, "through libcni");
    before.assert_unchanged(&site.node);
}

#[track_caller]
fn accepts(site: &Site, list: &Value) {
    let before = Snapshot::of(&site.node);
    assert_eq!(site.node.plugin(list).status().expect_ok().stdout, "");
    site.node.client(list).status().expect_ok();
    before.assert_unchanged(&site.node);
}

#[test]
fn a_node_that_can_serve_says_nothing_and_touches_nothing() {
    let site = Site::new();
    accepts(&site, &site.list());
    let pod = Pod::new();
    site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    accepts(&site, &site.list());
    assert_eq!(site.node.leases(Site::NETWORK).len(), 1);
}

#[test]
fn an_uplink_that_does_not_carry_cuts_off_those_attached_too() {
    let site = Site::new();
    let list = site.list();
    let pod = Pod::new();
    // Before the first pod and after it, the answer is the same.
    for attached in [false, true] {
        if attached {
            site.node.plugin(&list).add(&pod.eth0()).expect_ok();
        }
        site.node.ip("link set nic0 down");
        refuses(&site, &list, 51, &["nic0", "down"]);
        site.node.ip("link set nic0 up");
        accepts(&site, &list);
        site.router.ip("link set port down");
        refuses(&site, &list, 51, &["nic0", "carrier"]);
        site.router.ip("link set port up");
        let plugin = site.node.plugin(&list);
        integration::poll(Duration::from_secs(5), "the carrier", || plugin.status().ok());
    }
    site.node.ip("link del nic0");
    refuses(&site, &list, 51, &["nic0"]);
}

#[test]
fn what_an_add_would_be_refused_for_is_50() {
    for (patch, parts) in [
        (json!({"ipam": {"type": "no-such-ipam"}}), &["no-such-ipam"][..]),
        (json!({"bridge": "lo"}), &["lo"]),
        (json!({"mtu": 9000}), &["mtu", "9000"]),
        (json!({"ipam": {"dataDir": "/proc/no-such-folder"}}), &["/proc/no-such-folder"]),
    ] {
        let site = Site::new();
        let mut list = site.list();
        merge(&mut list["plugins"][0], &patch);
        refuses(&site, &list, 50, parts);
    }
    let site = Site::new();
    site.node.ip("addr add 172.20.56.9/24 dev nic0");
    refuses(&site, &site.list(), 50, &["nic0", "172.20.56.9"]);
    let other = Site::new();
    other.node.ip("link add other type bridge\nlink set nic0 master other");
    refuses(&other, &other.list(), 50, &["nic0", "other"]);
}

#[test]
fn a_slice_that_is_full_does_not_make_the_node_unready() {
    let site = Site::new();
    let mut list = site.list();
    list["plugins"][0]["ipam"]["slice"] = json!("172.20.56.16/31");
    let pods = [Pod::new(), Pod::new()];
    for pod in &pods {
        site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    }
    accepts(&site, &list);
}

#[test]
fn an_add_onto_a_down_uplink_succeeds_with_a_warning() {
    let down: fn(&Site) = |site| site.node.ip("link set nic0 down");
    let no_carrier: fn(&Site) = |site| site.router.ip("link set port down");
    for take_down in [down, no_carrier] {
        let site = Site::new();
        take_down(&site);
        let (first, second) = (Pod::new(), Pod::new());
        for pod in [&first, &second] {
            let outcome = site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
            assert!(outcome.stderr.contains("nic0"), "the warning names it: {outcome}");
            assert_eq!(outcome.result().ips.len(), 1);
        }
        site.node.ip("link set nic0 up");
        site.router.ip("link set port up");
        first.wait_for(Site::GATEWAY);
    }
}
