//! What a pod may send: forged frames reach neither the switch nor another pod, and the pod's own frames
//! pass.

pub(crate) mod frames;
pub(crate) mod repair;

use crate::guard::frames::{
    ALLOWED, BROADCAST, Case, FORGED, NEIGHBOUR, NEIGHBOUR6, OWN, OWN6, ROUTER6, STRANGER, cases, frame,
    link_local_cases, mark, marked, udp,
};
use integration::{
    Capture, Frame, Namespace, Pod, Protocol, Server, Site, Transport, at, mac_bytes, set_keys,
};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// A pod that forges, a neighbour, and the router, on one network.
pub struct Scene {
    pub site: Site,
    pub list: Value,
    pub pod: Pod,
    pub neighbour: Pod,
}

impl Scene {
    pub fn new(keys: Value) -> Scene {
        let site = Site::new();
        site.give_node_its_own_network();
        site.router.ip(&format!("addr add {ROUTER6}/64 dev port nodad"));
        // With br_netfilter the kernel would reassemble bridged fragments, and hold back a later fragment
        // without its first.
        for key in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
            if Path::new("/proc/sys").join(key).exists() {
                site.node.set_sysctl(key, "0");
            }
        }
        let mut conf = site.dual_stack_conf();
        conf["capabilities"] = json!({"ips": true});
        set_keys(&mut conf, &keys);
        let list = site.node.list(Site::NETWORK, &[conf]);
        let scene = Scene { site, list, pod: Pod::new(), neighbour: Pod::new() };
        let client = scene.site.node.client(&scene.list);
        client.add(&scene.eth0()).expect_ok();
        let ips = json!({"ips": [NEIGHBOUR, NEIGHBOUR6]});
        client.add(&scene.neighbour.eth0().capabilities(ips)).expect_ok();
        scene
    }

    pub fn eth0(&self) -> integration::Attachment {
        self.pod.eth0().capabilities(json!({"ips": [OWN, OWN6]}))
    }
}

/// The cases that the capture has. Each frame ends with the number of its case.
fn heard(capture: &Capture, cases: &[Case]) -> Vec<bool> {
    let frames: Vec<Frame> = capture.frames();
    (0..cases.len()).map(|number| frames.iter().any(|frame| frame.payload.ends_with(&mark(number)))).collect()
}

/// Sends every case from the pod. Returns the cases that the router and the neighbour received.
fn send_all(scene: &Scene, cases: impl Fn([u8; 6]) -> Vec<Case>) -> (Vec<Case>, [Vec<bool>; 2]) {
    let (router, neighbour) =
        (Capture::start(&scene.site.router, "port"), Capture::start(&scene.neighbour, "eth0"));
    let cases = cases(mac_bytes(&scene.pod.mac("eth0")));
    for (number, (_, bytes, _)) in cases.iter().enumerate() {
        scene.pod.send_frame("eth0", &marked(bytes, number));
    }
    let heard = [heard(&router, &cases), heard(&neighbour, &cases)];
    (cases, heard)
}

/// The router and the neighbour receive exactly the allowed frames.
fn assert_guarded(scene: &Scene, cases: impl Fn([u8; 6]) -> Vec<Case>) {
    let (cases, heard) = send_all(scene, cases);
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
fn nothing_forged_leaves_a_pod_and_all_of_its_own_does() {
    assert_guarded(&Scene::new(json!({"allowedAddresses": [ALLOWED]})), cases);
}

#[test]
fn a_virtual_machine_may_have_any_link_local_address_where_that_is_allowed() {
    let scene = Scene::new(json!({"allowedAddresses": ["fe80::/64"]}));
    assert_guarded(&scene, link_local_cases);
    scene.site.node.client(&scene.list).check(&scene.eth0()).expect_ok();
    let none_of_them = |mac| {
        let cases = link_local_cases(mac).into_iter();
        cases.take(2).map(|(name, bytes, _)| (name, bytes, false)).collect()
    };
    assert_guarded(&Scene::new(json!({"allowedAddresses": [ALLOWED]})), none_of_them);
}

#[test]
fn without_the_guard_everything_is_heard() {
    let scene = Scene::new(json!({"guard": false}));
    let (cases, heard) = send_all(&scene, |mac| [cases(mac), link_local_cases(mac)].concat());
    for heard in heard {
        for ((name, ..), heard) in cases.iter().zip(heard) {
            assert!(heard, "{name}: the tests of the guard prove nothing about it");
        }
    }
    assert_eq!(scene.site.node.run("nft list tables").expect_ok().stdout, "table inet vlan-bridge-uplinks\n");
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
            // No DHCP server answers, so the ADD fails, but the log is written.
            let outcome = site.node.plugin(&list).add(&pod.eth0());
            assert!(outcome.stderr.contains("guard: ipam dhcp may change"), "{outcome}");
            continue;
        }
        let added = site.node.plugin(&list).add(&pod.eth0()).expect_ok();
        assert!(added.stderr.contains("guard: there is no ipam"), "{added}");
        let port = Capture::start(&site.router, "port");
        let own = mac_bytes(&pod.mac("eth0"));
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
            let to = at(address, 7000);
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
