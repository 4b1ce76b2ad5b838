//! The frames of a pod at the router: announcements, and only its own MAC.

use crate::attached::Clean;
use integration::{Capture, Frame, Node, Plugin, Pod, Site, mac_bytes, poll};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 20, 56, 20);

/// The site's plugin with both families.
fn dual_stack(clean: &Clean) -> Plugin<'_> {
    let subnets = json!([
        [{"subnet": "172.20.56.0/24", "rangeStart": "172.20.56.20", "gateway": Site::GATEWAY}],
        [{"subnet": "2001:db8:56::/64", "rangeStart": "2001:db8:56::20", "gateway": "2001:db8:56::1"}],
    ]);
    let mut plugin = clean.plugin_with_ipam(json!({
        "type": "vlan-bridge-ipam", "ranges": subnets, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }));
    plugin.conf["ipam"]["dataDir"] = json!(clean.site.node.data_dir());
    plugin
}

fn count(capture: &Capture, condition: impl Fn(&Frame) -> bool) -> usize {
    capture.frames().iter().filter(|frame| condition(frame)).count()
}

/// An unsolicited neighbour advertisement (RFC 4861 section 4.4) of an address with the override flag.
fn advertises(frame: &Frame, address: Ipv6Addr) -> bool {
    const IPV6: u16 = 0x86dd;
    let body = frame.payload.get(40..64);
    frame.ethertype == IPV6
        && body.is_some_and(|body| body[0] == 136 && body[4] == 0x20 && body[8..24] == address.octets())
}

#[test]
fn a_new_pod_is_announced_several_times_in_both_families() {
    let (clean, pod) = (Clean::new(), Pod::new());
    clean.site.router.ip("addr add 2001:db8:56::1/64 dev port nodad");
    let capture = Capture::start(&clean.site.router, "port");
    let result = dual_stack(&clean).add(&pod.eth0()).result();
    assert_eq!(result.cidr(), format!("{ADDRESS}/24"));
    assert_eq!(result.ips[1].address.to_string(), "2001:db8:56::20/64");
    let own = mac_bytes(&pod.mac("eth0"));
    // Sender and target are the same address.
    let gratuitous = |frame: &Frame| frame.arp() == Some((ADDRESS, ADDRESS)) && frame.source == own;
    let address = "2001:db8:56::20".parse().unwrap();
    let unsolicited = |frame: &Frame| advertises(frame, address) && frame.source == own;
    poll(Duration::from_secs(5), "several announcements of both addresses", || {
        count(&capture, gratuitous) >= 2 && count(&capture, unsolicited) >= 2
    });
    for gateway in [Site::GATEWAY, "2001:db8:56::1"] {
        assert!(pod.pings(gateway), "{gateway}");
    }
    assert!(clean.site.router.pings("172.20.56.20") && clean.site.router.pings("2001:db8:56::20"));
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
    // A request for another address would not update a router. A request without a sender address is a probe.
    let asks =
        |(from, to): (Ipv4Addr, Ipv4Addr)| from != to && !from.is_unspecified() && addresses.contains(&to);
    let crossed: Vec<_> =
        capture.frames().iter().filter_map(|frame| frame.arp()).filter(|arp| asks(*arp)).collect();
    assert!(crossed.is_empty(), "{crossed:?}");
}

#[test]
fn a_router_that_remembers_the_last_holder_of_an_address_reaches_the_new_one_at_once() {
    let clean = Clean::new();
    let router = &clean.site.router;
    router.ip("addr add 2001:db8:56::1/64 dev port nodad");
    for address in ["172.20.56.20", "2001:db8:56::20"] {
        // The entry stays until another frame changes it.
        router.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:66 dev port nud reachable"));
    }
    let pod = Pod::new();
    dual_stack(&clean).add(&pod.eth0()).expect_ok();
    assert!(router.pings("172.20.56.20") && router.pings("2001:db8:56::20"));
}

/// Sets another MAC in the pod, and sends the router a request from it.
fn send_as(pod: &Pod, mac: &str) -> bool {
    pod.ip(&format!("link set eth0 address {mac}\nneigh flush dev eth0"));
    pod.pings(Site::GATEWAY)
}

/// Frames that the router has from this MAC.
fn heard(capture: &Capture, mac: [u8; 6]) -> usize {
    count(capture, |frame| frame.source == mac)
}

#[test]
fn with_macspoofchk_a_pod_sends_with_its_own_mac_only() {
    const FORGED: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
    for (check, passes) in [(json!(false), true), (json!(true), false)] {
        let (clean, pod) = (Clean::new(), Pod::new());
        let plugin = clean.plugin().with("macspoofchk", check).with("guard", json!(false));
        plugin.add(&pod.eth0()).expect_ok();
        let capture = Capture::start(&clean.site.router, "port");
        assert!(pod.pings(Site::GATEWAY), "its own MAC passes");
        let own = pod.mac("eth0");
        assert!(heard(&capture, mac_bytes(&own)) > 0);
        assert_eq!(send_as(&pod, "02:00:00:00:00:66"), passes);
        assert_eq!(heard(&capture, FORGED) > 0, passes);
        pod.ip("route replace default via 172.20.56.1");
        assert!(send_as(&pod, &own), "its own MAC passes again");
        plugin.del(&pod.eth0()).expect_ok();
        clean.assert_nothing_left(&pod);
    }
}

/// The reference checks with nftables rules, our plugin with a locked bridge port.
#[test]
fn macspoofchk_needs_no_rules() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let plugin = clean.plugin().with("guard", json!(false));
    clean.site.node.nft("flush ruleset");
    plugin.with("macspoofchk", json!(true)).add(&pod.eth0()).expect_ok();
    let tables = clean.site.node.run("nft list tables").stdout;
    assert!(!tables.contains("table bridge"), "{tables}");
    assert_eq!(locked_ports(&clean.site.node), 1);
}

fn locked_ports(node: &Node) -> usize {
    let links = node.ip_json("-details link show master br136");
    let locked = |link: &&Value| link["linkinfo"]["info_slave_data"]["locked"] == true;
    links.as_array().unwrap().iter().filter(locked).count()
}
