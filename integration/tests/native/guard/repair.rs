//! The guard during a pod's whole life. It is there from the start, is restored after a removal, and ends
//! with the pod.

use crate::attached::Clean;
use crate::guard::Scene;
use crate::guard::frames::{BROADCAST, FORGED, OWN, STRANGER, frame, mark, marked, udp};
use crate::kill::{Threads, at_every_point};
use integration::{Background, Capture, Pod, Site, Snapshot, poll};
use serde_json::{Value, json};
use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

/// The rules for ARP of an earlier version, which let a pod probe for any address.
const FORMER: &str = "flush chain bridge vlan-bridge arp-senders
add rule bridge vlan-bridge arp-senders iifname . arp saddr ether . arp saddr ip @addresses4 accept
add rule bridge vlan-bridge arp-senders iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 accept
add rule bridge vlan-bridge arp-senders drop
delete chain bridge vlan-bridge arp-probes";

#[test]
fn what_a_firewalls_restart_took_is_noticed_and_put_back_for_all() {
    let scene = Scene::new(json!({"allowedAddresses": ["fe80::/64"]}));
    let client = scene.site.node.client(&scene.list);
    let listed = || scene.site.node.run("nft list table bridge vlan-bridge").stdout;
    let sorted = |text: String| {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    let before = sorted(listed());
    let damages = [
        "flush ruleset",
        "flush chain bridge vlan-bridge pod",
        "flush set bridge vlan-bridge macs",
        "flush set bridge vlan-bridge addresses6",
        "flush set bridge vlan-bridge link-locals",
        "flush map bridge vlan-bridge ports",
        FORMER,
    ];
    for damage in damages {
        client.check(&scene.eth0()).expect_ok();
        scene.site.node.nft(damage);
        let outcome = client.check(&scene.eth0());
        assert_eq!(outcome.error_code(), 101, "{damage}: {outcome}");
        assert!(outcome.error_text().contains("bridge vlan-bridge"), "{damage}: {outcome}");
        let other = Pod::new();
        client.add(&other.eth0()).expect_ok();
        client.check(&scene.eth0()).expect_ok();
        client.del(&other.eth0()).expect_ok();
        assert_eq!(sorted(listed()), before, "{damage}");
    }
    // A DEL restores it too.
    for damage in damages {
        let other = Pod::new();
        client.add(&other.eth0()).expect_ok();
        scene.site.node.nft(damage);
        client.del(&other.eth0()).expect_ok();
        client.check(&scene.eth0()).expect_ok();
        assert_eq!(sorted(listed()), before, "{damage}");
    }
}

/// The call may be one of another network, without a guard and behind NAT.
#[test]
fn calls_for_a_pod_without_a_guard_put_it_back_too() {
    let scene = Scene::new(json!({}));
    let (node, client) = (&scene.site.node, scene.site.node.client(&scene.list));
    let conf = json!({"type": "vlan-bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let other = node.plugin(&node.list("local", &[conf]));
    let pod = Pod::new();
    let valid = json!([{"containerID": pod.id(), "ifname": "eth0"}]);
    let calls: [(&str, &dyn Fn()); 3] = [
        ("ADD", &|| drop(other.add(&pod.eth0()).expect_ok())),
        ("GC", &|| drop(other.clone().with("cni.dev/valid-attachments", valid.clone()).gc().expect_ok())),
        ("DEL", &|| drop(other.del(&pod.eth0()).expect_ok())),
    ];
    for (verb, call) in calls {
        for damage in ["delete table bridge vlan-bridge", "flush set bridge vlan-bridge addresses4"] {
            client.check(&scene.eth0()).expect_ok();
            node.nft(damage);
            assert_eq!(client.check(&scene.eth0()).error_code(), 101, "{damage}");
            call();
            let after = client.check(&scene.eth0());
            assert!(after.ok(), "{verb} after {damage}: {after}");
            if verb == "ADD" {
                other.del(&pod.eth0()).expect_ok();
            }
        }
        if verb == "ADD" {
            other.add(&pod.eth0()).expect_ok();
        }
    }
}

/// Otherwise each ADD would look for the dead pod's rules, and find them missing.
#[test]
fn the_record_of_a_dead_pod_goes_with_the_repair() {
    let (clean, dead, lives) = (Clean::new(), Pod::new(), Pod::new());
    let (node, plugin) = (&clean.site.node, clean.plugin());
    let name = plugin.add(&dead.eth0()).result().host_interface().to_owned();
    let records = PathBuf::from(node.records().to_str().unwrap().replace("/attachments/", "/guards/"));
    assert!(records.join(&name).exists());
    let gone = dead.eth0().without_netns();
    drop(dead);
    poll(Duration::from_secs(10), "the veth goes with the pod", || !node.has_link(&name));
    node.nft("flush ruleset");
    plugin.add(&lives.eth0()).expect_ok();
    assert!(!records.join(&name).exists() && !node.run("nft list ruleset").stdout.contains(&name));
    plugin.del(&lives.eth0()).expect_ok();
    plugin.del(&gone).expect_ok();
    clean.assert_nothing_left(&lives);
}

#[test]
fn a_mac_that_has_been_changed_is_named_by_check() {
    let scene = Scene::new(json!({}));
    let client = scene.site.node.client(&scene.list);
    let added = scene.site.node.plugin(&scene.list);
    scene.pod.ip("link set eth0 address 02:00:00:00:00:66");
    let outcome = client.check(&scene.eth0());
    assert_eq!(outcome.error_code(), 101, "{outcome}");
    // The guard does not need the MAC in ADD's result.
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
        let name = plugin.add(&pod.eth0()).result().host_interface().to_owned();
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

/// Removes a guard's record of any node.
fn remove_record(veth: &str) {
    let folders = std::fs::read_dir("/run/vlan-bridge/guards").unwrap().flatten();
    let removed = folders.filter(|folder| std::fs::remove_file(folder.path().join(veth)).is_ok()).count();
    assert_eq!(removed, 1, "the record of {veth}");
}

/// A pod can set its own end up as soon as it exists, and after a killed ADD until the DEL.
#[test]
fn a_pod_that_is_quicker_than_its_guard_sends_nothing() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let (node, plugin) = (&clean.site.node, clean.plugin());
    plugin.add(&pod.eth0()).expect_ok();
    plugin.del(&pod.eth0()).expect_ok();
    let port = Capture::start(&clean.site.router, "port");
    let sent = Cell::new(0);
    let forge = |_| {
        if pod.has_link("eth0") {
            pod.ip("link set eth0 up");
            let links = node.ip_json("-d link show master br136");
            let is_end = |link: &&Value| link["ifname"].as_str().is_some_and(|name| name.len() == 15);
            if let Some(end) = links.as_array().unwrap().iter().find(is_end)
                && end["flags"].as_array().unwrap().contains(&json!("UP"))
            {
                let name = end["ifname"].as_str().unwrap();
                let state = || {
                    node.ip_json(&format!("-d link show {name}"))[0]["linkinfo"]["info_slave_data"]["state"]
                        .clone()
                };
                poll(Duration::from_secs(10), "the port forwards", || state() == "forwarding");
            }
            pod.send_frame("eth0", &marked(&frame(BROADCAST, FORGED, 0x0800, &udp(STRANGER, [9, 9])), 0));
            sent.set(sent.get() + 1);
        }
        plugin.del(&pod.eth0()).expect_ok();
    };
    let add = plugin.call("ADD", &pod.eth0());
    at_every_point(&["sendto", "sendmsg"], Threads::Main, &add, || (), forge);
    plugin.add(&pod.eth0()).expect_ok();
    assert!(pod.pings(Site::GATEWAY) && sent.get() > 3, "{}", sent.get());
    port.wait_for("the pod's own", |frame| frame.concerns(Site::GATEWAY));
    let forged = port.frames().iter().filter(|frame| frame.payload.ends_with(&mark(0))).count();
    assert_eq!(forged, 0, "of {}", sent.get());
}

/// A pod that sends forged frames without a pause during its ADD is never heard.
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
