//! What a pod may send: nothing forged is seen at the switch or at another pod, and all that is the pod's own passes.

use crate::attached::{Clean, host_interface};
use integration::{
    Background, Capture, Frame, Namespace, Pod, Protocol, Server, Site, Snapshot, Transport, poll,
};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The pod's address, a neighbour's, the router's and nobody's.
const OWN: &str = "172.20.56.20";
const OWN6: &str = "fd00:136::1:20";
const NEIGHBOUR: &str = "172.20.56.21";
const NEIGHBOUR6: &str = "fd00:136::1:21";
const ROUTER6: &str = "fd00:136::1";
const STRANGER: &str = "192.0.2.66";
const ALLOWED: &str = "172.20.56.100";

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const SPANNING_TREE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
const FORGED: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn frame(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

fn arp(operation: u8, sender_mac: [u8; 6], sender: &str, target: &str) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &sender_mac, &v4(sender).octets(), &[0; 6], &v4(target).octets()].concat()
}

/// RFC 791 and RFC 768. Length and sum come with the mark.
fn udp(from: &str, ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(v4(from).octets());
    packet.extend([255; 4]);
    ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
    packet.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet
}

/// RFC 8200, to all nodes.
fn ipv6(next: u8, from: &str, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 255];
    packet.extend(v6(from).octets());
    packet.extend(v6("ff02::1").octets());
    packet.extend(body);
    packet
}

/// RFC 4861: type, and the target where it has one.
fn icmpv6(from: &str, kind: u8, target: &str) -> Vec<u8> {
    ipv6(58, from, &[&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &v6(target).octets()].concat())
}

fn udp6(from: &str, ports: [u16; 2]) -> Vec<u8> {
    let ports = ports.map(u16::to_be_bytes).concat();
    ipv6(17, from, &[&ports[..], &[0, 12, 0, 0, 1, 2, 3, 4]].concat())
}

/// A frame that a pod sends, and whether it may.
type Case = (&'static str, Vec<u8>, bool);

/// Everything that is tried. `own` is the pod's MAC.
fn cases(own: [u8; 6]) -> Vec<Case> {
    let link_local = |mac: [u8; 6]| {
        let [a, b, c, d, e, f] = mac.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f).to_string()
    };
    let (mine, not_mine) = (link_local(own), link_local(FORGED));
    let of = |mac| move |ethertype, payload: Vec<u8>| frame(BROADCAST, mac, ethertype, &payload);
    let mut bpdu = vec![0x42, 0x42, 3];
    bpdu.resize(38, 0);
    let tagged = |vid: u16, ethertype: u16, payload: Vec<u8>| {
        [&vid.to_be_bytes()[..], &ethertype.to_be_bytes(), &payload].concat()
    };
    let (own_frame, forged) = (of(own), of(FORGED));
    let (ip, ip6, arps) = (0x0800, 0x86dd, 0x0806);
    vec![
        ("own address", own_frame(ip, udp(OWN, [9, 9])), true),
        ("forged MAC", forged(ip, udp(OWN, [9, 9])), false),
        ("forged address", own_frame(ip, udp(STRANGER, [9, 9])), false),
        ("the neighbour's address", own_frame(ip, udp(NEIGHBOUR, [9, 9])), false),
        ("an allowed address", own_frame(ip, udp(ALLOWED, [9, 9])), true),
        ("ARP request", own_frame(arps, arp(1, own, OWN, Site::GATEWAY)), true),
        ("ARP announcement of an allowed address", own_frame(arps, arp(1, own, ALLOWED, ALLOWED)), true),
        ("ARP probe", own_frame(arps, arp(1, own, "0.0.0.0", OWN)), true),
        ("ARP reply for the router", own_frame(arps, arp(2, own, Site::GATEWAY, NEIGHBOUR)), false),
        ("ARP reply for a neighbour", own_frame(arps, arp(2, own, NEIGHBOUR, Site::GATEWAY)), false),
        ("ARP reply with another MAC inside", own_frame(arps, arp(2, FORGED, OWN, Site::GATEWAY)), false),
        ("DHCP offer", own_frame(ip, udp(OWN, [67, 68])), false),
        ("DHCP request", own_frame(ip, udp(OWN, [68, 67])), true),
        ("BPDU", frame(SPANNING_TREE, own, 38, &bpdu), false),
        ("own IPv6 address", own_frame(ip6, udp6(OWN6, [9, 9])), true),
        ("own link-local address", own_frame(ip6, udp6(&mine, [9, 9])), true),
        ("another link-local address", own_frame(ip6, udp6(&not_mine, [9, 9])), false),
        ("forged IPv6 address", own_frame(ip6, udp6("2001:db8::66", [9, 9])), false),
        ("the neighbour's IPv6 address", own_frame(ip6, udp6(NEIGHBOUR6, [9, 9])), false),
        ("no IPv6 address", own_frame(ip6, udp6("::", [9, 9])), false),
        ("DHCPv6 reply", own_frame(ip6, udp6(&mine, [547, 546])), false),
        ("router advertisement", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 134, "::")), false),
        ("redirect", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 137, OWN6)), false),
        ("router solicitation", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 133, "::")), true),
        ("advertisement of its own", frame(ALL_NODES, own, ip6, &icmpv6(OWN6, 136, OWN6)), true),
        ("advertisement for the router", frame(ALL_NODES, own, ip6, &icmpv6(OWN6, 136, ROUTER6)), false),
        ("advertisement for a neighbour", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 136, NEIGHBOUR6)), false),
        ("advertisement by a stranger", frame(ALL_NODES, own, ip6, &icmpv6(NEIGHBOUR6, 136, OWN6)), false),
        ("duplicate detection of its own", frame(ALL_NODES, own, ip6, &icmpv6("::", 135, OWN6)), true),
        (
            "duplicate detection of a neighbour's",
            frame(ALL_NODES, own, ip6, &icmpv6("::", 135, NEIGHBOUR6)),
            false,
        ),
        ("a tag", own_frame(0x8100, tagged(51, ip, udp(OWN, [9, 9]))), false),
        ("no VLAN's tag", own_frame(0x8100, tagged(0, ip, udp(STRANGER, [9, 9]))), false),
        ("a provider's tag", own_frame(0x88a8, tagged(51, ip, udp(OWN, [9, 9]))), false),
        ("an unknown tag", own_frame(0x9200, tagged(51, ip, udp(STRANGER, [9, 9]))), false),
        (
            "IPv4 in a frame of 802.2",
            own_frame(40, [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &udp(STRANGER, [9, 9])].concat()),
            false,
        ),
    ]
}

/// A MAC out of iproute2's text.
fn mac_of(pod: &Pod) -> [u8; 6] {
    let link = pod.ip_json("link show dev eth0");
    let bytes =
        link[0]["address"].as_str().unwrap().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect::<Vec<u8>>().try_into().unwrap()
}

/// A pod that forges, a neighbour, and the router, on one network.
struct Scene {
    site: Site,
    list: Value,
    pod: Pod,
    neighbour: Pod,
}

impl Scene {
    fn new(keys: Value) -> Scene {
        let site = Site::new();
        site.give_node_its_own_network();
        site.router.ip(&format!("addr add {ROUTER6}/64 dev port nodad"));
        let mut conf = site.dual_stack_conf();
        conf["capabilities"] = json!({"ips": true});
        for (key, value) in keys.as_object().unwrap() {
            conf[key] = value.clone();
        }
        let list = site.node.list(Site::NETWORK, &[conf]);
        let scene = Scene { site, list, pod: Pod::new(), neighbour: Pod::new() };
        let client = scene.site.node.client(&scene.list);
        client.add(&scene.eth0()).expect_ok();
        let ips = json!({"ips": [NEIGHBOUR, NEIGHBOUR6]});
        client.add(&scene.neighbour.eth0().capabilities(ips)).expect_ok();
        scene
    }

    fn eth0(&self) -> integration::Attachment {
        self.pod.eth0().capabilities(json!({"ips": [OWN, OWN6]}))
    }
}

/// Which of the cases the capture has heard: each is sent with its number at the end.
fn heard(capture: &Capture, cases: &[Case]) -> Vec<bool> {
    let frames: Vec<Frame> = capture.frames();
    (0..cases.len()).map(|number| frames.iter().any(|frame| frame.payload.ends_with(&mark(number)))).collect()
}

fn mark(number: usize) -> [u8; 6] {
    [0xca, 0x5e, 0xca, 0x5e, 0, number as u8]
}

/// A frame with its mark at the end, within the packet: a bridge cuts off what comes after it, and drops what is no packet.
fn marked(bytes: &[u8], number: usize) -> Vec<u8> {
    let mut frame = [bytes, &mark(number)[..]].concat();
    let tag = if matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) { 4 } else { 0 };
    let packet = &mut frame[12 + tag..];
    let length = packet.len() as u16 - 2;
    match packet[..2] {
        [0x08, 0x00] => {
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            let words = packet[2..22].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum: u32 = words.sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[12..14].copy_from_slice(&sum.to_be_bytes());
        }
        [0x86, 0xdd] => packet[6..8].copy_from_slice(&(length - 40).to_be_bytes()),
        _ => {}
    }
    frame
}

/// Sends every case from the pod and says which of them the router and the neighbour heard.
fn send_all(scene: &Scene) -> (Vec<Case>, [Vec<bool>; 2]) {
    let (router, neighbour) =
        (Capture::start(&scene.site.router, "port"), Capture::start(&scene.neighbour, "eth0"));
    let cases = cases(mac_of(&scene.pod));
    for (number, (_, bytes, _)) in cases.iter().enumerate() {
        scene.pod.send_frame("eth0", &marked(bytes, number));
    }
    let heard = [heard(&router, &cases), heard(&neighbour, &cases)];
    (cases, heard)
}

#[test]
fn nothing_forged_leaves_a_pod_and_all_of_its_own_does() {
    let scene = Scene::new(json!({"allowedAddresses": [ALLOWED]}));
    let (cases, heard) = send_all(&scene);
    for (who, heard) in ["router", "neighbour"].iter().zip(heard) {
        let wrong: Vec<&str> = cases
            .iter()
            .zip(heard)
            .filter(|((.., may), heard)| may != heard)
            .map(|((name, ..), _)| *name)
            .collect();
        assert!(
            wrong.is_empty(),
            "the {who} should have heard these and has not, or the other way round: {wrong:?}"
        );
    }
}

#[test]
fn without_the_guard_everything_is_heard() {
    let scene = Scene::new(json!({"guard": false}));
    let (cases, heard) = send_all(&scene);
    for heard in heard {
        for ((name, ..), heard) in cases.iter().zip(heard) {
            assert!(heard, "{name}: the tests of the guard prove nothing about it");
        }
    }
    assert_eq!(scene.site.node.run("nft list ruleset").expect_ok().stdout, "");
}

#[test]
fn without_known_addresses_the_mac_alone_counts_and_the_log_says_so() {
    for ipam in [json!({}), json!({"type": "dhcp"})] {
        let site = Site::new();
        let mut conf = site.conf();
        conf["ipam"] = ipam.clone();
        let list = site.node.list(Site::NETWORK, &[conf]);
        let pod = Pod::new();
        if ipam["type"] == "dhcp" {
            // Nobody to ask, so the ADD fails, but the log has been written.
            let outcome = site.node.plugin(&list).add(&pod.eth0());
            assert!(outcome.stderr.contains("guard: ipam dhcp may change"), "{outcome}");
            continue;
        }
        let added = site.node.plugin(&list).add(&pod.eth0()).expect_ok();
        assert!(added.stderr.contains("guard: there is no ipam"), "{added}");
        let port = Capture::start(&site.router, "port");
        let own = mac_of(&pod);
        for (number, mac) in [own, FORGED].into_iter().enumerate() {
            let bytes = frame(BROADCAST, mac, 0x0800, &udp(STRANGER, [9, 9]));
            pod.send_frame("eth0", &marked(&bytes, number));
        }
        pod.send_frame("eth0", &frame(BROADCAST, own, 0x8100, &[&[0, 51, 8, 0][..], &mark(2)].concat()));
        let frames = port.frames();
        let heard = [0, 1, 2].map(|n| frames.iter().any(|frame| frame.payload.ends_with(&mark(n))));
        assert_eq!(heard, [true, false, false]);
        site.node.plugin(&list).del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn guarded_pods_talk_to_each_other_to_the_router_and_to_their_node() {
    let scene = Scene::new(json!({}));
    let node: &Namespace = &scene.site.node;
    let parties = [
        (&scene.pod as &Namespace, [OWN, OWN6]),
        (&scene.neighbour, [NEIGHBOUR, NEIGHBOUR6]),
        (&scene.site.router, [Site::GATEWAY, ROUTER6]),
        (node, Site::NODE),
    ];
    for (server, addresses) in &parties {
        for (index, address) in addresses.iter().enumerate() {
            let to = SocketAddr::new(address.parse().unwrap(), 7000);
            let _servers = Transport::ALL.map(|transport| Server::on(server, transport, to));
            for (client, own) in [(&scene.pod, [OWN, OWN6]), (&scene.neighbour, [NEIGHBOUR, NEIGHBOUR6])] {
                if own == *addresses {
                    continue;
                }
                for protocol in Protocol::ALL {
                    let expected = if protocol == Protocol::Ping { address } else { &own[index] };
                    let expected: IpAddr = expected.parse().unwrap();
                    assert_eq!(
                        client.asks(protocol, to),
                        Some(expected),
                        "{protocol:?} {own:?} -> {address}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_a_firewalls_restart_took_is_noticed_and_put_back_for_all() {
    let scene = Scene::new(json!({}));
    let client = scene.site.node.client(&scene.list);
    let listed = || scene.site.node.run("nft list table bridge vlan-bridge").stdout;
    let sorted = |text: String| {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    let before = sorted(listed());
    for damage in ["flush ruleset", "flush chain bridge vlan-bridge pod", "flush set bridge vlan-bridge macs"]
    {
        client.check(&scene.eth0()).expect_ok();
        scene.site.node.nft(damage);
        let outcome = client.check(&scene.eth0());
        assert_eq!(outcome.error_code(), 101, "{damage}: {outcome}");
        assert!(outcome.error_text().contains("bridge vlan-bridge"), "{damage}: {outcome}");
        if damage.starts_with("flush set") {
            scene.site.node.nft("delete table bridge vlan-bridge");
        }
        let other = Pod::new();
        client.add(&other.eth0()).expect_ok();
        client.del(&other.eth0()).expect_ok();
        assert_eq!(sorted(listed()), before, "{damage}");
    }
    // A DEL puts it back too.
    for damage in ["flush chain bridge vlan-bridge pod", "flush ruleset"] {
        scene.site.node.nft(damage);
        client.del(&scene.neighbour.eth0()).expect_ok();
        client.check(&scene.eth0()).expect_ok();
    }
}

#[test]
fn a_mac_that_has_been_changed_is_named_by_check() {
    let scene = Scene::new(json!({}));
    let client = scene.site.node.client(&scene.list);
    let added = scene.site.node.plugin(&scene.list);
    scene.pod.ip("link set eth0 address 02:00:00:00:00:66");
    let outcome = client.check(&scene.eth0());
    assert_eq!(outcome.error_code(), 101, "{outcome}");
    // What ADD reported of the MAC is of no interest to the guard.
    let result = json!({"cniVersion": "1.1.0", "ips": [{"address": format!("{OWN}/24")}]});
    let mut list = scene.list.clone();
    list["plugins"][0]["hostAccess"] = json!(false);
    let outcome = scene.site.node.plugin(&list).check(&scene.eth0(), &result);
    assert!(outcome.error_text().contains("guard: false"), "{outcome}");
    added.del(&scene.pod.eth0()).expect_ok();
}

#[test]
fn nothing_of_the_guard_is_left_however_a_pod_goes() {
    let clean = Clean::new();
    let (node, plugin) = (&clean.site.node, clean.plugin());
    let before = Snapshot::of(node);
    let added = || {
        let pod = Pod::new();
        let name = host_interface(&plugin.add(&pod.eth0()).expect_ok());
        assert!(node.run("nft list ruleset").stdout.contains(&name));
        (pod, name)
    };
    let (pod, _) = added();
    plugin.del(&pod.eth0().without_netns()).expect_ok();
    before.assert_unchanged(node);
    // With the veth gone, and without the record.
    for without_record in [false, true] {
        let (pod, name) = added();
        let eth0 = pod.eth0().without_netns();
        drop(pod);
        poll(Duration::from_secs(10), "the veth goes with the pod", || !node.has_link(&name));
        if without_record {
            remove_record(&name);
        }
        plugin.del(&eth0).expect_ok();
        before.assert_unchanged(node);
    }
    // By GC, which leaves the others.
    let (stays, _) = added();
    let (goes, name) = added();
    drop(goes);
    poll(Duration::from_secs(10), "the veth goes with the pod", || !node.has_link(&name));
    let valid = json!([stays.eth0().valid()]);
    plugin.clone().with("cni.dev/valid-attachments", valid).gc().expect_ok();
    assert!(!node.run("nft list ruleset").stdout.contains(&name));
    assert!(stays.pings(Site::GATEWAY));
    plugin.del(&stays.eth0()).expect_ok();
    clean.assert_nothing_left(&stays);
}

/// Takes a guard's record away, of whichever node.
fn remove_record(veth: &str) {
    let folders = std::fs::read_dir("/run/vlan-bridge/guards").unwrap().flatten();
    let removed = folders.filter(|folder| std::fs::remove_file(folder.path().join(veth)).is_ok()).count();
    assert_eq!(removed, 1, "the record of {veth}");
}

/// A pod that forges without a pause while it is attached is never heard.
#[test]
fn there_is_no_moment_without_the_guard() {
    let clean = Clean::new();
    let pod = Pod::new();
    let flood = "while :; do ip addr add 192.0.2.66/32 dev eth0; ip route replace 192.0.2.0/24 dev eth0; \
                 ping -q -c 1 -W 1 -I 192.0.2.66 -b 192.0.2.255; done";
    let mut command = pod.command("sh");
    command.args(["-c", flood]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _flood = Background::start(&mut command);
    let port = Capture::start(&clean.site.router, "port");
    for guard in [true, false] {
        let plugin = clean.plugin().with("guard", json!(guard));
        for _ in 0..5 {
            plugin.add(&pod.eth0()).expect_ok();
            if !guard {
                port.wait_for("the flood, unguarded", |frame| frame.mentions(STRANGER.parse().unwrap()));
            }
            plugin.del(&pod.eth0()).expect_ok();
        }
        let forged = port.frames().iter().any(|frame| frame.mentions(STRANGER.parse().unwrap()));
        assert_eq!(forged, !guard);
    }
}
