//! DEL removes everything of an attachment, even if parts are gone or broken, and a repeated DEL succeeds.

use crate::attached::{Clean, FakeIpam, add_through};
use integration::{Attachment, Pod, Site, Snapshot};
use serde_json::{Value, json};

/// Attaches a pod, breaks something, detaches the pod twice, and checks that nothing is left.
#[track_caller]
fn goes_after(spoil: impl FnOnce(&Clean, &Pod, &str)) {
    let (clean, pod) = (Clean::new(), Pod::new());
    let name = clean.plugin().add(&pod.eth0()).result().host_interface().to_owned();
    spoil(&clean, &pod, &name);
    for attachment in [pod.eth0(), pod.eth0().without_netns()] {
        let outcome = clean.plugin().del(&attachment).expect_ok();
        assert_eq!(outcome.stdout, "", "{outcome}");
    }
    assert!(!clean.site.node.has_link(&name) && !pod.has_link("eth0"));
    assert!(clean.site.node.leases(Site::NETWORK).is_empty());
}

#[test]
fn del_twice() {
    goes_after(|_, _, _| ());
}

#[test]
fn del_of_an_attachment_whose_link_is_gone() {
    goes_after(|_, pod, _| pod.ip("link del eth0"));
}

#[test]
fn del_of_an_attachment_whose_bridge_is_gone() {
    goes_after(|clean, _, _| clean.make_bare());
}

#[test]
fn del_of_an_attachment_whose_uplink_is_gone() {
    goes_after(|clean, _, _| clean.site.node.ip("link del nic0"));
}

#[test]
fn del_of_an_attachment_that_was_renamed_in_the_pod() {
    goes_after(|_, pod, _| pod.ip("link set eth0 down\nlink set eth0 name renamed"));
}

#[test]
fn del_of_an_attachment_that_was_taken_off_its_bridge() {
    goes_after(|clean, _, name| clean.site.node.ip(&format!("link set {name} nomaster down")));
}

#[test]
fn del_with_an_empty_netns_while_the_pod_still_lives() {
    let (clean, pod) = (Clean::new(), Pod::new());
    clean.plugin().add(&pod.eth0()).expect_ok();
    clean.plugin().del(&pod.eth0().without_netns()).expect_ok();
    clean.assert_nothing_left(&pod);
}

#[test]
fn del_of_a_pod_that_is_gone() {
    let clean = Clean::new();
    for forget in [Attachment::without_netns, |eth0: Attachment| eth0] {
        let pod = Pod::new();
        let eth0 = forget(pod.eth0());
        clean.plugin().add(&pod.eth0()).expect_ok();
        drop(pod);
        clean.plugin().del(&eth0).expect_ok();
        clean.plugin().del(&eth0).expect_ok();
        clean.assert_nothing_left(&Pod::new());
    }
}

#[test]
fn del_of_what_was_never_added() {
    let (clean, pod) = (Clean::new(), Pod::new());
    clean.plugin().del(&pod.eth0()).expect_ok();
    clean.plugin().del(&pod.eth0().without_netns()).expect_ok();
    clean.assert_nothing_left(&pod);
}

#[test]
fn del_with_a_configuration_that_add_would_refuse() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let ipam = |change: fn(&mut Value)| {
        let mut list = clean.site.list();
        change(&mut list["plugins"][0]["ipam"]);
        list["plugins"][0]["ipam"].clone()
    };
    for (key, value) in [
        ("ipam", ipam(|ipam| ipam["subnet"] = json!("172.20.56.0/33"))),
        ("ipam", ipam(|ipam| ipam["subnet"] = json!(7))),
        ("ipam", ipam(|ipam| ipam["slice"] = json!("10.0.0.0/28"))),
        ("ipam", ipam(|ipam| ipam["gateway"] = json!("the router"))),
        ("ipam", ipam(|ipam| ipam["routes"] = json!({"dst": 5}))),
        ("uplink", json!({"vlan": 5000})),
        ("uplink", json!("nic0")),
        ("bridge", json!("a name that no interface can have")),
        ("bridge", json!(["br136"])),
        ("mtu", json!("wide")),
        ("vlan", json!(-1)),
        ("vlanTrunk", json!("all")),
        ("hairpinMode", json!("yes")),
        ("ipMasq", json!(true)),
        ("dns", json!("none")),
        ("runtimeConfig", json!({"mac": "broken", "ips": "none"})),
        ("args", json!([])),
        ("prevResult", json!({"cniVersion": "7", "ips": 1})),
        ("somebody", json!({"elses": "key"})),
    ] {
        clean.plugin().add(&pod.eth0()).expect_ok();
        clean.plugin().with(key, value).del(&pod.eth0()).expect_ok();
        clean.assert_nothing_left(&pod);
    }
}

#[test]
fn a_lease_that_cannot_be_given_back_fails_del_but_does_not_keep_the_link() {
    let (clean, pod) = (Clean::new(), Pod::new());
    clean.plugin().add(&pod.eth0()).expect_ok();
    let refusing = FakeIpam::new(
        "vlan-bridge-ipam",
        "echo '{\"cniVersion\": \"1.1.0\", \"code\": 123, \"msg\": \"not now\"}'; exit 1",
    );
    let outcome = refusing.before(clean.plugin().call("DEL", &pod.eth0())).run();
    assert_eq!(outcome.error_code(), 123, "{outcome}");
    assert!(!pod.has_link("eth0"));
    clean.plugin().del(&pod.eth0().without_netns()).expect_ok();
    clean.assert_nothing_left(&pod);
}

#[test]
fn the_link_is_down_before_its_address_is_free_for_others() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    let result = json!({"cniVersion": "1.1.0", "ips": [{"address": "172.20.56.9/24"}]});
    let script = format!(
        "case $CNI_COMMAND in\nADD) echo '{result}';;\n*) ip -o link show type veth > \"$folder/seen\";;\nesac"
    );
    let ipam = FakeIpam::new("fake", &script);
    let name = add_through(&ipam, &plugin, &pod.eth0()).result().host_interface().to_owned();
    ipam.before(plugin.call("DEL", &pod.eth0())).run().expect_ok();
    let seen = ipam.read("seen");
    let silent = |line: &str| !line.contains(&name) || line.contains("state DOWN");
    assert!(seen.contains("nic0") && seen.lines().all(silent), "{seen}");
    clean.assert_nothing_left(&pod);
}

/// Records the state of the pod's interface when IPAM is called.
const LOOK: &str = "ip -n \"${CNI_NETNS##*/}\" -o link show dev eth0 > \"$folder/at-$CNI_COMMAND\" 2>&1";

/// With carrier on the pod's end, frames pass.
const CARRIER: &str = "LOWER_UP";

#[test]
fn a_failed_add_is_silent_before_its_address_is_free_for_others() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let route = json!({"dst": "10.0.0.0/8", "gw": Site::GATEWAY});
    let result = json!({
        "cniVersion": "1.1.0", "ips": [{"address": "172.20.56.9/24"}], "routes": [route, route],
    });
    let ipam = FakeIpam::new("fake", &format!("{LOOK}\necho '{result}'"));
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    assert_eq!(add_through(&ipam, &plugin, &pod.eth0()).error_code(), 102);
    assert!(ipam.read("at-ADD").contains(CARRIER), "{}", ipam.read("at-ADD"));
    let seen = ipam.read("at-DEL");
    assert!(!seen.is_empty() && !seen.contains(CARRIER), "{seen}");
    clean.assert_nothing_left(&pod);
}

#[test]
fn what_a_killed_add_left_is_silent_before_its_address_is_free_for_others() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let result = json!({"cniVersion": "1.1.0", "ips": [{"address": "172.20.56.9/24"}]});
    let kill =
        "[ $CNI_COMMAND = DEL ] || [ -e \"$folder/killed\" ] || { touch \"$folder/killed\"; kill -9 $PPID; }";
    let ipam = FakeIpam::new("fake", &format!("{LOOK}\n{kill}\necho '{result}'"));
    let plugin = clean.plugin_with_ipam(json!({"type": "fake"}));
    assert!(!add_through(&ipam, &plugin, &pod.eth0()).ok());
    assert!(pod.has_link("eth0"), "the killed ADD left it");
    let again = add_through(&ipam, &plugin, &pod.eth0()).result();
    let seen = ipam.read("at-DEL");
    assert!(!seen.is_empty() && !seen.contains(CARRIER), "{seen}");
    assert!(clean.site.node.has_link(again.host_interface()));
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn a_second_interface_of_the_same_pod_outlives_the_first() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let net1 = pod.interface("net1");
    // Without routes, because a second default route would fail.
    let mut list = clean.site.list();
    list["plugins"][0]["ipam"]["routes"] = json!([]);
    let second = clean.site.node.plugin(&list);
    clean.plugin().add(&pod.eth0()).expect_ok();
    let result = second.add(&net1).result();
    let (node, inside) = (Snapshot::of(&clean.site.node), Snapshot::of(&pod));
    clean.plugin().del(&pod.eth0()).expect_ok();
    assert!(pod.has_link("net1") && !pod.has_link("eth0"));
    second.check(&net1, &result).expect_ok();
    assert!(pod.pings(Site::GATEWAY));
    clean.plugin().add(&pod.eth0()).expect_ok();
    assert_eq!(clean.site.node.leases(Site::NETWORK).len(), 2);
    clean.plugin().del(&pod.eth0()).expect_ok();
    second.del(&net1).expect_ok();
    clean.assert_nothing_left(&pod);
    let difference =
        [node.difference(&Snapshot::of(&clean.site.node)), inside.difference(&Snapshot::of(&pod))];
    assert!(difference.iter().all(|lines| !lines.is_empty()), "the snapshots see attachments");
}

#[test]
fn a_finished_attachment_is_refused_and_left_as_it_is() {
    let (clean, pod) = (Clean::new(), Pod::new());
    clean.plugin().add(&pod.eth0()).expect_ok();
    let before = (Snapshot::of(&clean.site.node), Snapshot::of(&pod), clean.site.node.leases(Site::NETWORK));
    for _ in 0..2 {
        let outcome = clean.plugin().add(&pod.eth0());
        assert_eq!(outcome.error_code(), 100, "{outcome}");
        assert!(outcome.error_text().contains("eth0"), "{outcome}");
    }
    before.0.assert_unchanged(&clean.site.node);
    before.1.assert_unchanged(&pod);
    assert_eq!(clean.site.node.leases(Site::NETWORK), before.2);
    assert!(pod.pings(Site::GATEWAY));
    clean.plugin().del(&pod.eth0()).expect_ok();
    clean.assert_nothing_left(&pod);
}

#[test]
fn an_interface_of_somebody_elses_survives_the_del_of_a_refused_add() {
    let clean = Clean::new();
    let node = &clean.site.node;
    node.ip("link add other type bridge\nlink set other up");
    // The peer is in the pod, on the node, or in a bridge of another network.
    for (netns, master) in [("POD", ""), ("NODE", ""), ("NODE", "master other")] {
        let pod = Pod::new();
        let netns = netns.replace("POD", pod.name()).replace("NODE", node.name());
        pod.ip(&format!(
            "link add eth0 type veth peer name theirs netns {netns}\naddr add 192.0.2.4/24 dev eth0"
        ));
        if !master.is_empty() {
            node.ip(&format!("link set theirs {master} up"));
        }
        let before = (Snapshot::of(node), Snapshot::of(&pod));
        assert_eq!(clean.plugin().add(&pod.eth0()).error_code(), 100);
        clean.plugin().del(&pod.eth0()).expect_ok();
        before.0.assert_unchanged(node);
        before.1.assert_unchanged(&pod);
        pod.ip("link del eth0");
    }
}

#[test]
fn an_attachment_to_one_network_survives_the_del_from_another() {
    let clean = Clean::new();
    for bridge in ["br137", "br136"] {
        let other = json!({"bridge": bridge, "uplink": null});
        let other = clean.site.node.plugin(&clean.site.network("other", &other));
        let pod = Pod::new();
        let result = clean.plugin().add(&pod.eth0()).result();
        assert_eq!(other.add(&pod.eth0()).error_code(), 100);
        for eth0 in [pod.eth0(), pod.eth0().without_netns()] {
            other.del(&eth0).expect_ok();
            clean.plugin().check(&pod.eth0(), &result).expect_ok();
            assert_eq!(clean.site.node.leases(Site::NETWORK).len(), 1);
        }
        assert!(pod.pings(Site::GATEWAY));
        clean.plugin().del(&pod.eth0()).expect_ok();
        assert!(!pod.has_link("eth0") && clean.site.node.leases(Site::NETWORK).is_empty());
    }
}

#[test]
fn an_interface_index_of_another_namespace_proves_nothing() {
    let (clean, theirs, pod, elsewhere) = (Clean::new(), Pod::new(), Pod::new(), Pod::new());
    let node = &clean.site.node;
    // An attachment of the reference plugin. Another pod has an `eth0` with the same index. Its peer, in a
    // third namespace, has the same index as the port.
    node.ip(&format!(
        "link add ref type veth peer name eth0 netns {}\nlink set ref master br136 up",
        theirs.name()
    ));
    let number = &node.ip_json("link show dev ref")[0]["ifindex"];
    elsewhere.ip(&format!("link add other index {number} type veth peer name eth0 netns {}", pod.name()));
    assert_eq!(
        pod.ip_json("link show dev eth0")[0]["ifindex"],
        theirs.ip_json("link show dev eth0")[0]["ifindex"]
    );
    let before = Snapshot::of(&pod);
    clean.plugin().del(&pod.eth0()).expect_ok();
    before.assert_unchanged(&pod);
}
