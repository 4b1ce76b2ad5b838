//! Addresses that other machines use. No pod may get one.

use integration::{
    Capture, Frame, Namespace, Node, Outcome, Plugin, Pod, Site, note, plugin, poll, run, set_keys,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Long enough that a frame of a slow machine comes before the last probe.
const SLOW: u64 = 500;

/// The site's own network with these keys in its section `ipam`.
fn with(site: &Site, ipam: Value) -> Plugin<'_> {
    let mut conf = site.conf();
    set_keys(&mut conf["ipam"], &ipam);
    site.node.plugin(&site.node.list(Site::NETWORK, &[conf]))
}

/// The number of ARP probes for each address.
fn asked(capture: &Capture) -> BTreeMap<IpAddr, usize> {
    let mut asked = BTreeMap::new();
    for addr in capture.frames().iter().filter_map(question) {
        *asked.entry(addr).or_default() += 1;
    }
    asked
}

fn question(frame: &Frame) -> Option<IpAddr> {
    // The kernel itself probes for the pods' link-local addresses.
    let of_the_network = |addr: &std::net::Ipv6Addr| !addr.is_unicast_link_local();
    frame.arp_probe().map(IpAddr::from).or_else(|| frame.detection().filter(of_the_network).map(IpAddr::from))
}

fn listed(site: &Site, state: &str) -> Vec<Value> {
    let mut command = Command::new(plugin("vlan-bridge-ipam"));
    command.args(["list", "-o", "json", "--data-dir"]).arg(site.node.data_dir()).env_remove("CNI_COMMAND");
    let listed = run(&mut command).expect_ok().json();
    listed.as_array().unwrap().iter().filter(|item| item["state"] == state).cloned().collect()
}

const DUAL: &str = "2001:db8::/64";

fn dual_stack() -> Value {
    json!({"ranges": [[{"subnet": DUAL, "slice": "2001:db8::10/124", "gateway": "2001:db8::1"}]]})
}

#[test]
fn an_address_that_somebody_answers_for_is_set_aside_and_the_next_is_given() {
    let site = Site::new();
    site.router.ip("addr add 172.20.56.16/24 dev port\naddr add 2001:db8::10/64 dev port nodad");
    let (plugin, pods) = (with(&site, dual_stack()), [Pod::new(), Pod::new()]);
    let first = plugin.add(&pods[0].eth0());
    assert_eq!(first.result().addresses(), ["172.20.56.17", "2001:db8::11"]);
    assert!(
        first.stderr.contains("172.20.56.16") && first.stderr.contains(&site.router.mac("port")),
        "{first}"
    );
    let set_aside = listed(&site, "quarantined");
    let shown: Vec<&Value> = set_aside.iter().map(|item| &item["address"]).collect();
    assert_eq!(shown, ["172.20.56.16", "2001:db8::10"]);
    assert!(set_aside.iter().all(|item| item["mac"] == site.router.mac("port")), "{set_aside:?}");
    assert_eq!(plugin.add(&pods[1].eth0()).result().addresses(), ["172.20.56.18", "2001:db8::12"]);
}

#[test]
fn a_requested_address_of_somebody_elses_is_refused_until_it_is_free() {
    let site = Site::new();
    site.router.ip("addr add 172.20.56.20/24 dev port");
    let (plugin, pod) = (with(&site, json!({})), Pod::new());
    let wanted = pod.eth0().args("IP=172.20.56.20");
    let refused = plugin.add(&wanted);
    assert_eq!(refused.error_code(), 111);
    assert!(refused.error_text().contains(&site.router.mac("port")), "{refused}");
    assert!(site.node.leases(Site::NETWORK).is_empty() && !pod.has_link("eth0"));
    site.router.ip("addr del 172.20.56.20/24 dev port");
    assert_eq!(plugin.add(&wanted).result().addresses(), ["172.20.56.20"]);
    assert!(listed(&site, "quarantined").is_empty());
}

#[test]
fn a_quarantine_ends() {
    let site = Site::new();
    site.router.ip("addr add 172.20.56.16/24 dev port");
    let plugin = with(&site, json!({"slice": "172.20.56.16/31", "conflictDetection": {"quarantine": 2}}));
    let pods = [Pod::new(), Pod::new()];
    assert_eq!(plugin.add(&pods[0].eth0()).result().addresses(), ["172.20.56.17"]);
    let full = plugin.add(&pods[1].eth0());
    assert_eq!(full.error_code(), 11);
    assert!(full.error_text().contains("1 used, 0 cooling, 1 quarantined of 2 ("), "{full}");
    assert!(full.error_text().contains(" is used by "), "{full}");
    site.router.ip("addr del 172.20.56.16/24 dev port");
    poll(Duration::from_secs(20), "the end of the quarantine", || {
        let again = plugin.add(&pods[1].eth0());
        again.ok() && again.result().addresses() == ["172.20.56.16"]
    });
}

/// An ADD beside a machine that sends these frames again and again until its end. A slow machine would send a
/// single frame too late.
fn add_beside(site: &Site, frames: &[Vec<u8>], add: impl FnOnce() -> Outcome + Send) -> Outcome {
    std::thread::scope(|scope| {
        let adding = scope.spawn(add);
        site.router.send_frames_until("port", frames, || adding.is_finished());
        adding.join().unwrap()
    })
}

/// An ARP probe of a machine with this MAC.
fn rival(mac: [u8; 6], addr: [u8; 4]) -> Vec<u8> {
    let parts: [&[u8]; 7] =
        [&[0xff; 6], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &[0; 4], &[0; 6], &addr];
    parts.concat()
}

/// A machine that only probes for an address does not have it yet. This ADD takes another address, and the
/// next ADD may take this one.
#[test]
fn what_another_machine_probes_for_is_passed_over_and_not_set_aside() {
    let site = Site::new();
    let plugin = with(&site, json!({"conflictDetection": {"intervalMs": SLOW}}));
    let pods = [Pod::new(), Pod::new()];
    let frames = [16, 99].map(|last| rival([2, 0, 0, 0, 0, 0x99], [172, 20, 56, last]));
    let outcome = add_beside(&site, &frames, || plugin.add(&pods[0].eth0()));
    assert_eq!(outcome.result().addresses(), ["172.20.56.17"]);
    assert!(listed(&site, "quarantined").is_empty());
    assert_eq!(plugin.add(&pods[1].eth0()).result().addresses(), ["172.20.56.16"]);
}

/// The solicitation of duplicate address detection (RFC 4862) of a machine with this MAC.
fn rival6(mac: [u8; 6], addr: Ipv6Addr) -> Vec<u8> {
    let [.., b, c, d] = addr.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(b), u16::from_be_bytes([c, d]));
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0], &addr.octets()[..]].concat();
    let summed = [&group.octets()[..], &[0, 24, 0, 58], &message].concat();
    let sum = summed.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header: [&[u8]; 5] = [
        &[0x33, 0x33, 0xff, b, c, d],
        &mac,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255],
        &[0; 16],
        &group.octets(),
    ];
    [header.concat(), message].concat()
}

/// The same by IPv6.
#[test]
fn what_another_machine_detects_by_ipv6_is_passed_over_and_not_set_aside() {
    let site = Site::new();
    let mut ipam = dual_stack();
    ipam["conflictDetection"] = json!({"intervalMs": SLOW});
    let plugin = with(&site, ipam);
    let pods = [Pod::new(), Pod::new()];
    let wanted: Ipv6Addr = "2001:db8::10".parse().unwrap();
    let frame = rival6([2, 0, 0, 0, 0, 0x99], wanted);
    let heard = Capture::start(&site.router, "port");
    let outcome = add_beside(&site, std::slice::from_ref(&frame), || plugin.add(&pods[0].eth0()));
    let is_own = |frame: &Frame| frame.detection() == Some(wanted) && frame.source != [2, 0, 0, 0, 0, 0x99];
    let own = heard.wait_for("a probe", is_own);
    assert!(frame.ends_with(&own.payload), "{own:?}");
    assert_eq!(outcome.result().addresses(), ["172.20.56.16", "2001:db8::11"]);
    assert!(listed(&site, "quarantined").is_empty());
    assert_eq!(plugin.add(&pods[1].eth0()).result().addresses(), ["172.20.56.17", "2001:db8::10"]);
}

/// An unguarded machine probes for every address of the slice all the time.
#[test]
fn probes_for_every_address_keep_nobody_from_one() {
    let site = Site::new();
    let plugin = with(&site, json!({}));
    let done = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for last in 16..32 {
                    site.router.send_frame("port", &rival([2, 0, 0, 0, 0, 0x99], [172, 20, 56, last]));
                }
            }
        });
        let outcomes = [Pod::new(), Pod::new()].map(|pod| plugin.add(&pod.eth0()));
        done.store(true, Ordering::Relaxed);
        outcomes
    });
    for outcome in outcomes {
        let named = outcome.stderr.matches("02:00:00:00:00:99 probes for many addresses").count();
        assert!(outcome.ok() && named <= 1, "{outcome}");
    }
    assert!(listed(&site, "quarantined").is_empty());
}

/// Two nodes with the same slice by mistake, which start at the same moment.
#[test]
fn two_nodes_that_probe_for_one_address_at_once_do_not_both_take_it() {
    const ROUNDS: usize = 6;
    let (switch, nodes) = (Namespace::new("switch"), [Node::new("one"), Node::new("two")]);
    switch.ip("link add lan type bridge\nlink set lan up");
    for (port, node) in ["one", "two"].iter().zip(&nodes) {
        switch.ip(&format!(
            "link add {port} type veth peer name nic0 netns {}\nlink set {port} master lan\nlink set {port} up",
            node.name()
        ));
        node.ip("link set nic0 up");
    }
    let conf = json!({
        "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "slice": "172.20.56.16/28"},
    });
    let plugins =
        nodes.each_ref().map(|node| node.plugin(&node.list("vlan136", std::slice::from_ref(&conf))));
    let pods: Vec<[Pod; 2]> = (0..ROUNDS).map(|_| [Pod::new(), Pod::new()]).collect();
    let mut given = Vec::new();
    for round in &pods {
        std::thread::scope(|scope| {
            let calls = [0, 1].map(|i| (&plugins[i], round[i].eth0()));
            let calls = calls.map(|(plugin, eth0)| scope.spawn(move || plugin.add(&eth0)));
            calls.into_iter().for_each(|call| given.extend(call.join().unwrap().result().addresses()));
        });
    }
    let different: BTreeSet<&String> = given.iter().collect();
    assert_eq!((given.len(), different.len()), (2 * ROUNDS, 2 * ROUNDS), "{given:?}");
}

#[test]
fn a_conflict_is_found_though_the_first_probe_is_lost() {
    let site = Site::new();
    site.router.ip("addr add 172.20.56.16/24 dev port");
    site.router.nft(
        "table netdev lossy { chain in { type filter hook ingress device port priority 0; \
         ether type arp arp daddr ip 172.20.56.16 limit rate 1/day burst 1 packets counter drop; }\n}\n",
    );
    let pod = Pod::new();
    assert_eq!(with(&site, json!({})).add(&pod.eth0()).result().addresses(), ["172.20.56.17"]);
    let dropped = site.router.run("nft list table netdev lossy").expect_ok();
    assert!(dropped.stdout.contains("counter packets 1 "), "{dropped}");
}

#[test]
fn probing_changes_no_neighbours_cache() {
    let site = Site::new();
    let candidates = 17..=31;
    for i in candidates.clone() {
        site.router.ip(&format!(
            "neigh replace 172.20.56.{i} lladdr 02:00:00:00:01:{i} dev port nud stale\n\
             neigh replace 2001:db8::{i} lladdr 02:00:00:00:01:{i} dev port nud stale"
        ));
    }
    let seen = || -> BTreeMap<String, String> {
        let all = site.router.ip_json("neigh show dev port");
        let entry = |entry: &Value| (entry["dst"].as_str().unwrap().to_owned(), entry.to_string());
        all.as_array().unwrap().iter().map(entry).filter(|(addr, _)| !addr.starts_with("fe80")).collect()
    };
    let (before, heard, pod) = (seen(), Capture::start(&site.router, "port"), Pod::new());
    let ipam =
        json!({"ranges": [[{"subnet": DUAL, "rangeStart": "2001:db8::16", "rangeEnd": "2001:db8::31"}]]});
    assert_eq!(with(&site, ipam).add(&pod.eth0()).result().addresses()[0], "172.20.56.16");
    let asked: BTreeSet<IpAddr> = asked(&heard).into_keys().collect();
    assert!(asked.contains(&"172.20.56.17".parse().unwrap()), "they were asked for: {asked:?}");
    let mut after = seen();
    // The pod has announced its own address.
    after.retain(|addr, _| before.contains_key(addr));
    assert_eq!(after, before);
}

#[test]
fn of_a_burst_one_add_in_eight_probes_at_the_most() {
    let site = Site::new();
    let plugin = with(&site, json!({"slice": "172.20.56.32/27"}));
    let (heard, pods): (_, Vec<Pod>) =
        (Capture::start(&site.router, "port"), (0..32).map(|_| Pod::new()).collect());
    let given: BTreeSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| plugin.add(&pod.eth0()).result().addresses().remove(0)))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(given.len(), pods.len());
    let asked = asked(&heard);
    let (frames, most) = (asked.values().sum::<usize>(), pods.len() / 8 * 16 * 3);
    note(&format!("32 ADDs at once sent {frames} probes for {} addresses", asked.len()));
    assert!(frames <= most, "{frames} probes: {asked:?}");
    for addr in &given {
        assert!(asked.get(&addr.parse().unwrap()).is_some_and(|times| *times >= 3), "{addr} of {asked:?}");
    }
}

#[test]
fn nobody_is_asked_where_it_is_off_or_there_is_no_uplink_or_nobody_could_answer() {
    let site = Site::new();
    let heard = Capture::start(&site.router, "port");
    let add = |plugin: &Plugin<'_>| {
        let pod = Pod::new();
        let outcome = plugin.add(&pod.eth0());
        plugin.del(&pod.eth0()).expect_ok();
        (outcome.result().addresses(), outcome.stderr)
    };
    add(&with(&site, json!({"conflictDetection": "off"})));
    let mut local = site.conf();
    local.as_object_mut().unwrap().remove("uplink");
    add(&site.node.plugin(&site.node.list(Site::NETWORK, &[local])));
    assert_eq!(asked(&heard), BTreeMap::new());
    add(&with(&site, json!({})));
    assert!(!asked(&heard).is_empty(), "the control");
    drop(heard);
    site.router.ip("link set port down");
    let (_, log) = add(&with(&site, json!({})));
    assert!(log.contains("nic0 has no carrier"), "{log}");
}

#[test]
fn a_plugin_that_is_killed_while_it_probes_takes_its_ipam_along() {
    let site = Site::new();
    let plugin = with(&site, json!({"conflictDetection": {"intervalMs": 2000}}));
    let (heard, pod) = (Capture::start(&site.router, "port"), Pod::new());
    let call = plugin.call("ADD", &pod.eth0());
    let mut adding = site.node.enter(|| {
        let mut command = call.bare_command();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(call.input()).unwrap();
        child
    });
    heard.wait_for("a probe", |frame| frame.arp_probe().is_some());
    adding.kill().unwrap();
    adding.wait().unwrap();
    plugin.del(&pod.eth0()).expect_ok();
    // Processes that wait for their turn to probe would wait for the orphan.
    let next = Pod::new();
    let quick = with(&site, json!({}));
    assert_eq!(quick.add(&next.eth0()).result().addresses(), ["172.20.56.16"]);
    assert_eq!(site.node.leases(Site::NETWORK), ["172.20.56.16"]);
}

#[test]
fn an_interface_to_probe_from_that_is_not_there_is_an_error_where_it_was_asked_for() {
    let site = Site::new();
    let pod = Pod::new();
    let refused = with(&site, json!({"conflictDetection": {"interface": "nowhere"}})).add(&pod.eth0());
    assert_eq!(refused.error_code(), 7);
    assert!(refused.error_text().contains("no interface nowhere to probe from"), "{refused}");
}

/// A quarantined address is used again later, even if an ADD found it that took another address.
#[test]
fn what_was_in_conflict_keeps_its_place_in_the_queue() {
    let site = Site::new();
    let used: Vec<u8> = (64..80).collect();
    for i in &used {
        site.router.ip(&format!("addr add 172.20.56.{i}/24 dev port"));
    }
    let plugin = with(
        &site,
        json!({"slice": "172.20.56.64/27", "conflictDetection": {"count": 1, "intervalMs": 50, "quarantine": 2}}),
    );
    let (pods, mut logs): (Vec<Pod>, String) = ((0..32).map(|_| Pod::new()).collect(), String::new());
    let first = plugin.add(&pods[0].eth0());
    assert_eq!(first.result().addresses(), ["172.20.56.80"]);
    for i in &used {
        site.router.ip(&format!("addr del 172.20.56.{i}/24 dev port"));
    }
    poll(Duration::from_secs(20), "the end of the quarantine", || listed(&site, "quarantined").is_empty());
    let mut given = BTreeSet::from([first.result().addresses().remove(0)]);
    for pod in &pods[1..] {
        let outcome = plugin.add(&pod.eth0());
        given.extend(outcome.result().addresses());
        logs += &outcome.stderr;
    }
    assert_eq!(given.len(), 32);
    assert!(!logs.contains("lost addresses"), "{logs}");
}

#[test]
fn an_address_of_the_node_itself_is_a_conflict() {
    let site = Site::new();
    site.node.ip("addr add 172.20.56.16/32 dev lo");
    let pod = Pod::new();
    assert_eq!(with(&site, json!({})).add(&pod.eth0()).result().addresses(), ["172.20.56.17"]);
}

#[test]
fn an_add_whose_last_window_finds_a_free_address_takes_it() {
    let site = Site::new();
    for i in 2..50 {
        site.router.ip(&format!("addr add 172.20.56.{i}/24 dev port"));
    }
    let pod = Pod::new();
    let ipam = json!({"slice": "172.20.56.0/24", "conflictDetection": {"count": 2, "intervalMs": 50}});
    assert_eq!(with(&site, ipam).add(&pod.eth0()).result().addresses(), ["172.20.56.50"]);
}
