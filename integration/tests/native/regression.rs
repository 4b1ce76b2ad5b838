//! What a review found, natively: uplinks that do not fit, the MTU of bridges, and whose an interface is.

use crate::attached::{Clean, FakeIpam, add_through};
use crate::uplink::refused;
use integration::{Capture, Pod, Site, Snapshot};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The site's configuration as another network with its own leases, with other keys.
fn network(site: &Site, name: &str, keys: &Value) -> Value {
    let mut conf = site.conf();
    crate::input::merge(&mut conf, keys);
    site.node.list(name, &[conf])
}

fn mtu(site: &Site, link: &str) -> Value {
    site.node.ip_json(&format!("link show dev {link}"))[0]["mtu"].clone()
}

#[test]
fn a_bridge_has_one_uplink() {
    let site = Site::new();
    site.node.ip("link add nic1 type veth peer name port1\nlink set nic1 up\nlink set port1 up");
    let second = network(&site, Site::NETWORK, &json!({"uplink": {"master": "nic1"}}));
    let pod = Pod::new();
    let first = network(&site, "first", &json!({}));
    site.node.plugin(&first).add(&pod.eth0()).expect_ok();
    refused(&site, &second, &["nic0", "nic1", "br136"]);
    assert_eq!(site.node.plugin(&second).status().error_code(), 50);
    assert!(pod.pings(Site::GATEWAY));
    // What is no uplink is no obstacle: a virtual machine's port, say.
    site.node.ip("link set port1 master br136");
    site.node.plugin(&first).add(&Pod::new().eth0()).expect_ok();
}

#[test]
fn only_link_local_addresses_may_be_on_an_uplink() {
    for line in ["addr add 10.44.0.5/24 dev nic0 scope link", "addr add 10.44.0.5/24 dev nic0 scope host"] {
        let site = Site::new();
        site.node.ip(line);
        refused(&site, &site.list(), &["nic0", "10.44.0.5"]);
    }
    let site = Site::new();
    site.node.ip("addr add 169.254.3.4/24 dev nic0 scope link\naddr add 169.254.4.5/24 dev nic0\n\
                  addr add fe80::7/64 dev nic0 nodad");
    let pod = Pod::new();
    site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn a_default_route_in_any_table_keeps_a_nic_out_of_a_bridge() {
    for line in ["route add default dev nic0 table 100", "-6 route add default dev nic0 table 100"] {
        let site = Site::new();
        site.node.run(&format!("ip {line}")).expect_ok();
        refused(&site, &site.list(), &["nic0", "default route"]);
    }
}

#[test]
fn a_smaller_mtu_of_one_network_does_not_shrink_the_bridge_of_all() {
    let site = Site::new();
    let narrow = network(&site, "narrow", &json!({"mtu": 1400}));
    let attached = |list: &Value| {
        let pod = Pod::new();
        site.node.plugin(list).add(&pod.eth0()).expect_ok();
        pod
    };
    let eth0 = |pod: &Pod| pod.ip_json("link show dev eth0")[0]["mtu"].clone();
    // An operator's, complete with its uplink; then one of ours.
    site.node.ip("link add br136 type bridge forward_delay 0\nlink set nic0 master br136\n\
                  link set br136 up");
    let pod = attached(&narrow);
    assert_eq!((eth0(&pod), mtu(&site, "br136")), (json!(1400), json!(1500)));
    drop(pod);
    site.node.ip("link del br136");
    let wide = attached(&network(&site, "wide", &json!({})));
    let pod = attached(&narrow);
    assert_eq!((eth0(&pod), eth0(&wide)), (json!(1400), json!(1500)));
    assert_eq!(mtu(&site, "br136"), 1500);
}

#[test]
fn an_interface_of_somebody_elses_survives_the_del_of_a_refused_add() {
    let clean = Clean::new();
    let node = &clean.site.node;
    node.ip("link add other type bridge\nlink set other up");
    // Where its peer is: in the pod, on the node, in a bridge that is not this network's.
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
        let other = clean.site.node.plugin(&network(&clean.site, "other", &other));
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

/// Notes how the pod's interface is when IPAM is called.
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
fn each_of_two_addresses_of_a_subnet_is_announced_as_its_own() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let range = |only: &str| json!([{"subnet": "172.20.56.0/24", "rangeStart": only, "rangeEnd": only}]);
    let ranges = json!([range("172.20.56.40"), range("172.20.56.60")]);
    let data_dir = clean.site.node.data_dir();
    let plugin = clean.plugin_with_ipam(json!({
        "type": "vlan-bridge-ipam", "ranges": ranges, "dataDir": data_dir,
    }));
    let capture = Capture::start(&clean.site.router, "port");
    plugin.add(&pod.eth0()).expect_ok();
    let addresses = [Ipv4Addr::new(172, 20, 56, 40), Ipv4Addr::new(172, 20, 56, 60)];
    for address in addresses {
        let what = format!("an announcement of {address}");
        capture.wait_for(&what, |frame| frame.arp() == Some((address, address)));
    }
    // One that asks for the other would tell a router nothing. Who asks in nobody's name probes.
    let asks =
        |(from, to): (Ipv4Addr, Ipv4Addr)| from != to && !from.is_unspecified() && addresses.contains(&to);
    let crossed: Vec<_> =
        capture.frames().iter().filter_map(|frame| frame.arp()).filter(|arp| asks(*arp)).collect();
    assert!(crossed.is_empty(), "{crossed:?}");
}

#[test]
fn an_interface_index_of_another_namespace_proves_nothing() {
    let (clean, theirs, pod, elsewhere) = (Clean::new(), Pod::new(), Pod::new(), Pod::new());
    let node = &clean.site.node;
    // As the reference plugin attaches a pod. Another has an `eth0` of the same number as that pod's, and its
    // peer, in a third namespace, that of the port.
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
