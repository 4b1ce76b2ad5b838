//! A plain NIC as the uplink: the refusals before anything is touched, and the operator's settings that are
//! kept.

pub(crate) mod boundary;

use crate::attached::Clean;
use integration::{Background, Capture, Namespace, Node, Pod, Site, poll, set_keys};
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn a_master_that_is_missing() {
    let site = Site::new();
    site.node.ip("link del nic0");
    site.node.assert_refuses(&site.list(), &["uplink.master", "nic0"]);
}

#[test]
fn a_master_that_is_a_bridge() {
    let site = Site::new();
    site.node.ip("link add br0 type bridge");
    let mut list = site.list();
    list["plugins"][0]["uplink"]["master"] = json!("br0");
    site.node.assert_refuses(&list, &["uplink.master", "br0", "bridge"]);
}

#[test]
fn a_bridge_name_that_somebody_else_has() {
    let site = Site::new();
    site.node.ip("link add br136 type veth peer name other");
    site.node.assert_refuses(&site.list(), &["br136", "veth"]);
}

#[test]
fn an_uplink_that_is_a_port_of_another_bridge() {
    let site = Site::new();
    site.node.ip("link add br0 type bridge\nlink set nic0 master br0");
    site.node.assert_refuses(&site.list(), &["nic0", "br0"]);
}

#[test]
fn a_bridge_has_one_uplink() {
    let site = Site::new();
    site.node.ip("link add nic1 type veth peer name port1\nlink set nic1 up\nlink set port1 up");
    let second = site.network(Site::NETWORK, &json!({"uplink": {"master": "nic1"}}));
    let pod = Pod::new();
    let first = site.network("first", &json!({}));
    site.node.plugin(&first).add(&pod.eth0()).expect_ok();
    site.node.assert_refuses(&second, &["nic0", "nic1", "br136"]);
    assert_eq!(site.node.plugin(&second).status().error_code(), 50);
    assert!(pod.pings(Site::GATEWAY));
    // A port that is not an uplink, such as a virtual machine's, is not an obstacle.
    site.node.ip("link set port1 master br136");
    site.node.plugin(&first).add(&Pod::new().eth0()).expect_ok();
}

#[test]
fn an_uplink_with_an_address_or_the_default_route() {
    for (lines, named) in [
        ("addr add 172.20.56.9/24 dev nic0", "172.20.56.9"),
        ("addr add 2001:db8::9/64 dev nic0 nodad", "2001:db8::9"),
        ("addr add 10.44.0.5/24 dev nic0 scope link", "10.44.0.5"),
        ("addr add 10.44.0.5/24 dev nic0 scope host", "10.44.0.5"),
        ("route add default dev nic0", "default route"),
        ("route add ::/0 dev nic0", "default route"),
        ("route add default dev nic0 table 100", "default route"),
        ("route add ::/0 dev nic0 table 100", "default route"),
    ] {
        let site = Site::new();
        site.node.ip(lines);
        site.node.assert_refuses(&site.list(), &["nic0", named]);
    }
}

#[test]
fn link_local_addresses_may_be_on_an_uplink() {
    let site = Site::new();
    site.node.ip("addr add 169.254.3.4/24 dev nic0 scope link\naddr add 169.254.4.5/24 dev nic0\n\
                  addr add fe80::7/64 dev nic0 nodad");
    let pod = Pod::new();
    site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn keys_that_contradict_the_uplink() {
    let site = Site::new();
    for (key, value) in [
        ("isGateway", json!(true)),
        ("isDefaultGateway", json!(true)),
        ("ipMasq", json!(true)),
        ("mtu", json!(1501)),
        ("bridge", json!("nic0")),
    ] {
        let mut list = site.list();
        list["plugins"][0][key] = value;
        site.node.assert_refuses(&list, &[key]);
    }
    for (key, value) in [("gateway", "172.20.57.1"), ("slice", "172.20.57.16/28")] {
        let mut list = site.list();
        list["plugins"][0]["ipam"][key] = json!(value);
        site.node.assert_refuses(&list, &[key, value]);
    }
}

#[test]
fn a_bridge_of_an_operators_keeps_what_it_has_and_gets_what_is_missing() {
    let (site, pod) = (Site::new(), Pod::new());
    site.node.ip("link add br136 address 02:00:00:00:01:36 mtu 1400 type bridge forward_delay 1500\n\
                  addr add 192.0.2.1/24 dev br136\n\
                  addr add 2001:db8::1/64 dev br136 nodad");
    let result = site.node.plugin(&site.list()).add(&pod.eth0()).result();
    let bridge = &site.node.ip_json("-details address show dev br136")[0];
    assert_eq!(bridge["address"], "02:00:00:00:01:36");
    assert_eq!(bridge["mtu"], 1400);
    assert!(bridge.get("ifalias").is_none(), "it is not ours: {bridge}");
    let addresses: Vec<_> =
        bridge["addr_info"].as_array().unwrap().iter().map(|a| a["local"].clone()).collect();
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert!(addresses.contains(&json!(address)), "{address} is not among {addresses:?}");
    }
    assert_eq!(bridge["linkinfo"]["info_data"]["forward_delay"], 0);
    assert_eq!(bridge["operstate"], "UP");
    assert_eq!(site.node.ip_json("link show dev nic0")[0]["master"], "br136");
    assert_eq!(result.interfaces[0].mac, "02:00:00:00:01:36");
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn a_bridge_that_we_make_has_the_uplinks_mac_and_mtu_and_no_forward_delay() {
    let (site, pod) = (Site::new(), Pod::new());
    site.node.ip("link set nic0 mtu 1400");
    site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    let bridge = &site.node.ip_json("-details link show dev br136")[0];
    assert_eq!(bridge["address"], site.node.mac("nic0"));
    assert_eq!(bridge["mtu"], 1400);
    assert_eq!(bridge["ifalias"], "vlan-bridge");
    assert_eq!(bridge["linkinfo"]["info_data"]["forward_delay"], 0);
    assert_eq!(pod.ip_json("link show dev eth0")[0]["mtu"], 1400);
    assert_eq!(site.node.sysctl("net/ipv6/conf/br136/accept_ra"), "0");
    // The bridge's MAC is pinned. It does not follow the lowest MAC of its ports.
    let low = Pod::new();
    let eth0 = low.eth0().capabilities(json!({"mac": "02:00:00:00:00:01"}));
    site.node.plugin(&site.list()).add(&eth0).expect_ok();
    assert_eq!(bridge["address"], site.node.mac("br136"));
}

fn mtu(site: &Site, link: &str) -> Value {
    site.node.ip_json(&format!("link show dev {link}"))[0]["mtu"].clone()
}

#[test]
fn a_smaller_mtu_of_one_network_does_not_shrink_the_bridge_of_all() {
    let site = Site::new();
    let narrow = site.network("narrow", &json!({"mtu": 1400}));
    let attached = |list: &Value| {
        let pod = Pod::new();
        site.node.plugin(list).add(&pod.eth0()).expect_ok();
        pod
    };
    let eth0 = |pod: &Pod| pod.ip_json("link show dev eth0")[0]["mtu"].clone();
    // First an operator's bridge with its uplink, then a bridge that the plugin made.
    site.node.ip("link add br136 type bridge forward_delay 0\nlink set nic0 master br136\n\
                  link set br136 up");
    let pod = attached(&narrow);
    assert_eq!((eth0(&pod), mtu(&site, "br136")), (json!(1400), json!(1500)));
    drop(pod);
    site.node.ip("link del br136");
    let wide = attached(&site.network("wide", &json!({})));
    let pod = attached(&narrow);
    assert_eq!((eth0(&pod), eth0(&wide)), (json!(1400), json!(1500)));
    assert_eq!(mtu(&site, "br136"), 1500);
}

/// `ip monitor` in a namespace, which prints every change that the kernel announces.
struct Monitor {
    _process: Background,
    output: PathBuf,
    mtu: u32,
}

impl Monitor {
    /// Starts one and waits until it prints a test change.
    fn start(node: &Node) -> Monitor {
        let output = node.folder().path().join("monitor");
        let mut command = node.command("ip");
        command.args(["-o", "monitor", "link", "address"]).stdout(File::create(&output).unwrap());
        let process = Background::start(&mut command);
        let mut monitor = Monitor { _process: process, output, mtu: 60_000 };
        monitor.text(node);
        monitor
    }

    /// Its output until now.
    fn text(&mut self, node: &Node) -> String {
        let mut text = String::new();
        poll(Duration::from_secs(10), "ip monitor hears a change of ours", || {
            // Another value each time, because only a change is announced.
            self.mtu += 1;
            node.ip(&format!("link set lo mtu {}", self.mtu));
            text = std::fs::read_to_string(&self.output).unwrap();
            text.contains(&format!("mtu {}", self.mtu))
        });
        text
    }
}

#[test]
fn a_second_run_changes_nothing_about_bridge_and_uplink() {
    let clean = Clean::new();
    let (node, pod) = (&clean.site.node, Pod::new());
    let mut monitor = Monitor::start(node);
    let name = clean.plugin().add(&pod.eth0()).result().host_interface().to_owned();
    let text = monitor.text(node);
    assert!(text.contains(&name), "the monitor did not see the pod's veth:\n{text}");
    for line in text.lines().filter(|line| !line.contains(&name)) {
        assert!(!line.contains("br136") && !line.contains("nic0"), "{line}");
    }
}

#[test]
fn a_pod_on_an_uplink_that_is_down_is_attached_with_a_warning() {
    let (site, pod) = (Site::new(), Pod::new());
    site.router.ip("link set port down");
    let outcome = site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    assert!(outcome.stderr.contains("nic0 has no carrier"), "{outcome}");
    site.router.ip("link set port up");
    pod.wait_for(Site::GATEWAY);
}

/// A router advertisement (RFC 4861 section 4.2) for 2001:db8:77::/64, from the router to all nodes.
fn advertise(site: &Site) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 0xe, 0x10, 0, 0, 0xe, 0x10, 0, 0, 0, 0]);
    message.extend("2001:db8:77::".parse::<std::net::Ipv6Addr>().unwrap().octets());
    site.router.send_icmpv6("port", "ff02::1", &message);
}

#[test]
fn router_advertisements_configure_neither_bridge_nor_pod() {
    let (clean, pod, control) = (Clean::new(), Pod::new(), Pod::new());
    clean.plugin().add(&pod.eth0()).expect_ok();
    // The control: an interface without an attachment on the same bridge, which accepts them.
    clean.site.node.ip(&format!(
        "link add control type veth peer name eth0 netns {}\nlink set control master br136 up",
        control.name()
    ));
    control.set_sysctl("net/ipv6/conf/eth0/accept_ra", "2");
    control.ip("link set eth0 up");
    let capture = Capture::start(&pod, "eth0");
    let ready =
        || clean.site.router.run("ip -6 addr show dev port scope link -tentative").stdout.contains("fe80");
    poll(Duration::from_secs(10), "the router has an address to advertise from", ready);
    let global = |namespace: &Namespace, dev: &str| {
        namespace.run(&format!("ip -6 addr show dev {dev} scope global")).stdout
    };
    poll(Duration::from_secs(10), "the control takes an advertised address", || {
        advertise(&clean.site);
        global(&control, "eth0").contains("2001:db8:77:")
    });
    capture.wait_for("the advertisement at the pod", |frame| {
        frame.ethertype == 0x86dd && frame.payload.get(40) == Some(&134)
    });
    for (namespace, dev) in [(clean.site.node.namespace(), "br136"), (&pod, "eth0")] {
        assert_eq!(global(namespace, dev), "");
        assert_eq!(namespace.run(&format!("ip -6 route show default dev {dev}")).stdout, "");
    }
}

/// DHCP for IPv4 with SLAAC, as with the reference. A pod ignores advertisements only if it has assigned IPv6
/// addresses, or a guard that allows no others.
#[test]
fn router_advertisements_configure_a_pod_where_nobody_else_gives_it_ipv6() {
    let v4 = json!([[{"subnet": "172.20.56.0/24"}]]);
    let both = json!([[{"subnet": "172.20.56.0/24"}], [{"subnet": "fd00:136::/64"}]]);
    for (keys, ranges, expected) in [
        (json!({"guard": false}), &v4, "1"),
        (json!({"guard": false, "acceptRA": false}), &v4, "0"),
        (json!({"guard": false}), &both, "0"),
        (json!({"guard": false, "acceptRA": true}), &both, "1"),
        (json!({}), &v4, "0"),
    ] {
        let (site, pod) = (Site::new(), Pod::new());
        pod.set_sysctl("net/ipv6/conf/default/accept_ra", "1");
        let mut list = site.list();
        set_keys(&mut list["plugins"][0], &keys);
        list["plugins"][0]["ipam"] = json!({"type": "vlan-bridge-ipam", "dataDir": site.node.data_dir(), "ranges": ranges, "conflictDetection": "off"});
        site.node.plugin(&list).add(&pod.eth0()).expect_ok();
        assert_eq!(pod.sysctl("net/ipv6/conf/eth0/accept_ra"), expected, "{keys} {ranges}");
    }
    let site = Site::new();
    let told =
        site.node.plugin(&site.list()).with("acceptRA", json!(true)).add(&Pod::new().eth0()).expect_ok();
    assert!(told.stderr.contains("acceptRA: true with guard"), "{told}");
}
