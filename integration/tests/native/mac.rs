//! The bridge's forwarding database: the port of each MAC, and no pod takes the MAC of another machine.

use integration::{Attachment, Node, Outcome, Pod, Site, Snapshot, frame_from, poll, set_keys};
use serde_json::json;
use std::thread;
use std::time::Duration;

/// A MAC that no machine has.
const FREE: &str = "02:00:00:00:00:07";

/// The ports at which the node's bridge has a MAC.
fn behind(node: &Node, bridge: &str, mac: &str) -> Vec<String> {
    let mut names: Vec<String> = node.fdb(bridge, mac).into_iter().map(|(_, port)| port).collect();
    names.dedup();
    names
}

#[test]
fn a_frame_with_a_pods_mac_from_elsewhere_does_not_move_the_pod() {
    let ways = [
        json!({}),
        json!({"macspoofchk": true}),
        json!({"hostAccess": false, "guard": false}),
        json!({"hostAccess": false, "guard": false, "macspoofchk": true}),
    ];
    for keys in ways {
        let (site, pods) = (Site::new(), [Pod::new(), Pod::new()]);
        let mut list = site.list();
        set_keys(&mut list["plugins"][0], &keys);
        let plugin = site.node.plugin(&list);
        let results = [0, 1].map(|index| plugin.add(&pods[index].eth0()).result());
        let (mac, own) = (pods[0].mac("eth0"), results[0].host_interface());
        // A loop, a reflecting hypervisor, or any machine in the VLAN. Also a neighbour on the bridge, which
        // a guard would stop.
        site.router.send_frame("port", &frame_from(&mac));
        pods[1].send_frame("eth0", &frame_from(&mac));
        assert_eq!(behind(&site.node, "br136", &mac), std::slice::from_ref(&own), "{keys}");
        for from in [&site.router, &*pods[1]] {
            assert!(from.pings(&results[0].address()), "{keys}");
        }
        assert!(pods[0].pings(Site::GATEWAY), "{keys}");
        plugin.check(&pods[0].eth0(), &results[0]).expect_ok();
        // Only a command on the node moves it, which CHECK reports. A late announcement of the pod moves such
        // an entry back, because it is not sticky.
        poll(Duration::from_secs(20), "CHECK finds the MAC elsewhere", || {
            site.node.run(&format!("bridge fdb replace {mac} dev nic0 master static")).expect_ok();
            let told = plugin.check(&pods[0].eth0(), &results[0]);
            assert_eq!(told.error_code(), 101, "{keys}: {told}");
            told.error_text().contains(&format!("{mac} behind nic0, not behind {own}"))
        });
    }
}

/// A router that is silent for a moment would lose its MAC to the pod, for the pod's whole life.
#[test]
fn a_mac_is_not_given_while_the_gateway_that_may_have_it_is_silent() {
    let (site, pod) = (Site::new(), Pod::new());
    let router = site.router.mac("port");
    let plugin = site.node.plugin(&site.list());
    plugin.add(&Pod::new().eth0()).expect_ok();
    site.router.ip("link set port down");
    site.node.run("bridge fdb flush dev nic0 master dynamic");
    for mac in [router.as_str(), FREE] {
        let told = plugin.add(&pod.eth0().args(&format!("MAC={mac}")));
        assert_eq!(told.error_code(), 11, "{told}");
        assert!(told.error_text().contains("no gateway answers"), "{told}");
    }
    site.router.ip("link set port up");
    let told = plugin.add(&pod.eth0().args(&format!("MAC={router}")));
    assert_eq!(told.error_code(), 105, "{told}");
    plugin.add(&pod.eth0().args(&format!("MAC={FREE}"))).expect_ok();
}

/// Releases without `sticky` did not write a port's record either. CHECK only warns about their pods, because
/// `repair` has no record to use.
#[test]
fn a_pin_that_frames_can_move_fails_check_where_repair_can_pin_it_again() {
    let (site, pod) = (Site::new(), Pod::new());
    let plugin = site.node.plugin(&site.list());
    let result = plugin.add(&pod.eth0()).result();
    let (mac, port) = (pod.mac("eth0"), result.host_interface());
    site.node.run(&format!("bridge fdb replace {mac} dev {port} master static")).expect_ok();
    let told = plugin.check(&pod.eth0(), &result);
    assert!(told.error_text().contains("(not sticky); vlan-bridgectl repair restores it"), "{told}");
    let records = format!("/run/vlan-bridge/ports/{}", site.node.cookie());
    std::fs::remove_dir_all(records).unwrap();
    let told = plugin.check(&pod.eth0(), &result).expect_ok();
    assert!(told.stderr.contains("restart the pod to pin its MAC"), "{told}");
}

/// The three keys for a requested MAC, as errors name them.
fn asking(pod: &Pod, mac: &str) -> [(Attachment, &'static str); 2] {
    [
        (pod.eth0().capabilities(json!({"mac": mac})), "runtimeConfig.mac"),
        (pod.eth0().args(&format!("MAC={mac}")), "CNI_ARGS: MAC"),
    ]
}

#[track_caller]
fn assert_taken(outcome: &Outcome, key: &str, mac: &str, holder: &str) {
    assert_eq!(outcome.error_code(), 105, "{outcome}");
    let text = outcome.error_text();
    assert!([key, mac, holder].iter().all(|part| text.contains(part)), "{key} {mac} {holder}: {outcome}");
}

#[test]
fn a_mac_that_somebody_has_is_refused_before_anything_is_touched() {
    let (site, first, second) = (Site::new(), Pod::new(), Pod::new());
    site.give_node_its_own_network();
    let plugin = site.node.plugin(&site.list());
    // Also before there is a bridge. The router has not sent a frame yet.
    let router = site.router.mac("port");
    for (asked, key) in asking(&second, &router) {
        let before = Snapshot::of(&site.node);
        assert_taken(&plugin.add(&asked), key, &router, "that of gateway 172.20.56.1");
        before.assert_unchanged(&site.node);
    }
    let result = plugin.add(&first.eth0()).result();
    let others_router = site.router.mac("own");
    site.node.wait_for("10.51.0.1");
    let holder = format!("container {}, interface eth0, network vlan136", first.id());
    let taken = [
        (site.node.mac("br136"), "of this node"),
        (site.node.mac("nic0"), "of this node"),
        (site.node.mac("nic1"), "that of interface nic1 of this node"),
        (site.node.mac(result.host_interface()), "of this node"),
        (router.clone(), "that of gateway 172.20.56.1"),
        (others_router, "that of gateway 10.51.0.1"),
        (first.mac("eth0"), &*holder),
    ];
    for (mac, holder) in &taken {
        let entries = behind(&site.node, "br136", mac);
        for (asked, key) in asking(&second, mac) {
            let before = Snapshot::of(&site.node);
            assert_taken(&plugin.add(&asked), key, mac, holder);
            before.assert_unchanged(&site.node);
            plugin.del(&asked).expect_ok();
        }
        assert_eq!(behind(&site.node, "br136", mac), entries, "{mac}");
        assert!(!second.has_link("eth0"), "{mac}");
        assert!(
            site.node.pings(&result.address()) && first.pings(Site::NODE[0]) && first.pings(Site::GATEWAY),
            "{mac}"
        );
    }
    assert_eq!(site.node.leases(Site::NETWORK), [result.address()]);
    for mac in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"] {
        for (asked, key) in asking(&second, mac) {
            let outcome = plugin.add(&asked);
            assert!(
                matches!(outcome.error_code(), 4 | 7) && outcome.error_text().contains(key),
                "{mac}: {outcome}"
            );
        }
    }
    let [(asked, _), _] = asking(&second, FREE);
    plugin.add(&asked).expect_ok();
    assert_eq!(second.mac("eth0"), FREE);
}

/// Without an uplink the gateway is the bridge.
#[test]
fn the_gateways_own_mac_is_refused_on_a_bridge_without_uplink() {
    let (node, first, second) = (Node::new("node"), Pod::new(), Pod::new());
    let conf = json!({"type": "vlan-bridge", "isDefaultGateway": true,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let plugin = node.plugin(&node.list("local", &[conf]));
    plugin.add(&first.eth0()).expect_ok();
    first.wait_for("10.22.0.1");
    for (mac, holder) in [(node.mac("cni0"), "interface cni0"), (first.mac("eth0"), first.id())] {
        let [(asked, key), _] = asking(&second, &mac);
        assert_taken(&plugin.add(&asked), key, &mac, holder);
    }
    assert!(first.pings("10.22.0.1"));
}

/// Like a virtual machine that moves from another node and still runs there.
#[test]
fn a_mac_that_is_heard_from_another_machine_moves_here() {
    let (site, pod) = (Site::new(), Pod::new());
    let plugin = site.node.plugin(&site.list());
    plugin.add(&Pod::new().eth0()).expect_ok();
    site.router.send_frame("port", &frame_from(FREE));
    assert_eq!(behind(&site.node, "br136", FREE), ["nic0"]);
    let [(asked, key), _] = asking(&pod, FREE);
    // No gateway answers, so the owner of the MAC is unknown.
    site.router.ip("addr del 172.20.56.1/24 dev port");
    assert_taken(&plugin.add(&asked), key, FREE, "no gateway answers");
    site.router.ip("addr add 172.20.56.1/24 dev port");
    let result = plugin.add(&asked).result();
    assert!(pod.pings(Site::GATEWAY));
    assert_eq!(behind(&site.node, "br136", FREE), [result.host_interface()]);
    assert!(site.router.pings(&result.address()));
}

#[test]
fn of_two_pods_that_ask_for_one_mac_at_once_one_gets_it() {
    const ROUNDS: usize = 5;
    let site = Site::new();
    let plugin = site.node.plugin(&site.list());
    for _ in 0..ROUNDS {
        let pods = [Pod::new(), Pod::new()];
        let asked: Vec<Attachment> = pods.iter().map(|pod| asking(pod, FREE)[0].0.clone()).collect();
        let outcomes: Vec<Outcome> = thread::scope(|scope| {
            let calls: Vec<_> = asked.iter().map(|asked| scope.spawn(|| plugin.add(asked))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            outcomes.iter().zip(&asked).partition(|(outcome, _)| outcome.ok());
        assert_eq!((won.len(), lost.len()), (1, 1), "{outcomes:?}");
        assert_eq!(lost[0].0.error_code(), 105, "{}", lost[0].0);
        assert_eq!(behind(&site.node, "br136", FREE), [won[0].0.result().host_interface()]);
        for attachment in &asked {
            plugin.del(attachment).expect_ok();
        }
        assert!(behind(&site.node, "br136", FREE).is_empty() && site.node.leases(Site::NETWORK).is_empty());
    }
}
