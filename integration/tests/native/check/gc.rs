//! GC removes the attachments of this network that are not listed as valid, and those of no other network.

use integration::{Attachment, Pod, Site};
use serde_json::{Value, json};

const OTHER: &str = "vlan136-b";

/// Two pods on the site's network, `eth0` and `eth1`, and a third interface of the first on another network
/// of the same bridge.
struct Gc {
    site: Site,
    pods: [Pod; 2],
}

impl Gc {
    fn new() -> Gc {
        let gc = Gc { site: Site::new(), pods: [Pod::new(), Pod::new()] };
        for attachment in gc.attachments() {
            gc.site.node.plugin(&gc.site.list()).add(&attachment).expect_ok();
        }
        gc.site.node.plugin(&gc.other()).add(&gc.pods[0].interface("net1")).expect_ok();
        gc
    }

    fn attachments(&self) -> [Attachment; 2] {
        [self.pods[0].eth0(), self.pods[1].eth0()]
    }

    /// A network whose name begins like the first's, on the same bridge.
    fn other(&self) -> Value {
        let mut list = self.site.list();
        list["name"] = json!(OTHER);
        list["plugins"][0]["ipam"]["routes"] = json!([]);
        list
    }

    /// Sends GC directly. libcni would first DEL the attachments in its cache.
    fn collect(&self, keys: &[(&str, Value)]) -> integration::Outcome {
        let plugin = self.site.node.plugin(&self.site.list());
        keys.iter().fold(plugin, |plugin, (key, value)| plugin.with(key, value.clone())).gc()
    }

    #[track_caller]
    fn expect(&self, first: bool, second: bool) {
        let there = self.pods.each_ref().map(|pod| pod.has_link("eth0"));
        assert_eq!(there, [first, second], "eth0 of the two pods");
        let leases = self.site.node.leases(Site::NETWORK);
        assert_eq!(leases.len(), usize::from(first) + usize::from(second), "{leases:?}");
        assert!(self.pods[0].has_link("net1"), "GC must not touch the other network");
        assert_eq!(self.site.node.leases(OTHER).len(), 1);
    }
}

#[test]
fn an_absent_list_says_nothing() {
    let gc = Gc::new();
    for keys in [&[][..], &[("cni.dev/something", json!([]))], &[("cni.dev/something", json!(null))]] {
        assert_eq!(gc.collect(keys).expect_ok().stdout, "");
        gc.expect(true, true);
    }
    gc.site.node.client(&gc.site.list()).gc(None).expect_ok();
    gc.expect(true, true);
}

#[test]
fn an_empty_list_says_that_all_of_the_network_goes() {
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    // libcni writes an empty list as null.
    for (key, empty) in keys.into_iter().flat_map(|key| [(key, json!([])), (key, json!(null))]) {
        let gc = Gc::new();
        assert_eq!(gc.collect(&[(key, empty)]).expect_ok().stdout, "");
        gc.expect(false, false);
        assert!(gc.site.node.has_link("br136"), "bridge and uplink stay");
        assert_eq!(gc.site.node.ip_json("link show dev nic0")[0]["master"], "br136");
        // A collected pod can be attached again.
        gc.site.node.plugin(&gc.site.list()).add(&gc.pods[0].eth0()).expect_ok();
        gc.expect(true, false);
    }
}

#[test]
fn what_is_listed_stays() {
    let gc = Gc::new();
    let [first, second] = gc.attachments();
    let key = "cni.dev/valid-attachments";
    gc.collect(&[(key, json!([first.valid(), second.valid()]))]).expect_ok();
    gc.expect(true, true);
    // The same container with another interface is another attachment.
    let mut elsewhere = second.valid();
    elsewhere["ifname"] = json!("eth1");
    gc.collect(&[(key, json!([first.valid(), elsewhere]))]).expect_ok();
    gc.expect(true, false);
    gc.collect(&[(key, json!([first.valid()])), ("cni.dev/attachments", json!([]))]).expect_ok();
    gc.expect(true, false);
    // A second GC succeeds too.
    gc.collect(&[(key, json!([]))]).expect_ok();
    gc.collect(&[(key, json!([]))]).expect_ok();
    gc.expect(false, false);
}

#[test]
fn it_works_through_libcni_without_a_cache() {
    let gc = Gc::new();
    let [first, _] = gc.attachments();
    gc.site.node.client(&gc.site.list()).gc(Some(&[&first])).expect_ok();
    gc.expect(true, false);
    gc.site.node.client(&gc.site.list()).gc(Some(&[])).expect_ok();
    gc.expect(false, false);
}

#[test]
fn a_list_that_cannot_be_read_removes_nothing() {
    let gc = Gc::new();
    let id = gc.pods[0].id();
    for list in [
        json!({}),
        json!("all"),
        json!([{}]),
        json!([{"containerID": id}]),
        json!([{"ifname": "eth0"}]),
        json!([{"containerID": 7, "ifname": "eth0"}]),
        json!([id]),
    ] {
        let outcome = gc.collect(&[("cni.dev/valid-attachments", list)]);
        assert_eq!(outcome.error_code(), 7, "{outcome}");
        assert!(outcome.error_text().contains("cni.dev/valid-attachments"), "{outcome}");
        gc.expect(true, true);
    }
}

#[test]
fn leases_without_a_link_and_links_without_a_lease_go_too() {
    let gc = Gc::new();
    let leases = gc.site.node.data_dir().join(Site::NETWORK);
    // The remains of a crash or an older release: a lease without an owner, a lease with only an ID, and a
    // veth without its lease.
    std::fs::write(leases.join("172.20.56.30"), "long-gone\r\neth0").unwrap();
    std::fs::write(leases.join("172.20.56.31"), "very-old").unwrap();
    std::fs::remove_file(leases.join(&gc.site.node.leases(Site::NETWORK)[0])).unwrap();
    gc.collect(&[("cni.dev/valid-attachments", json!([]))]).expect_ok();
    gc.expect(false, false);
}

#[test]
fn a_configuration_that_is_broken_since_does_not_fail_it() {
    let gc = Gc::new();
    let empty = ("cni.dev/valid-attachments", json!([]));
    let mut ipam = gc.site.list()["plugins"][0]["ipam"].clone();
    ipam["subnet"] = json!("nonsense");
    gc.collect(&[empty, ("uplink", json!({"master": "gone0"})), ("mtu", json!("big")), ("ipam", ipam)])
        .expect_ok();
    gc.expect(false, false);
}
