//! What `cargo xtask demo` shows: a data centre comes up, pods of two nodes talk, a frame is seen on the
//! wire, and the agent restores what other programs and a failover break.
//!
//! Every line shown is also a check: a wrong result ends the demo with a panic.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it is shown to a person, and fails like a test"
)]

use integration::{Agent, Attachment, Background, BondMode, BondedNode, Ctl, DataCenter, Pod, poll};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn main() {
    let start = Instant::now();
    heading("the data centre: two switches, a router, two nodes with bonded NICs");
    let datacenter = DataCenter::new();
    let [one, two] = datacenter.nodes([BondMode::Lacp, BondMode::ActiveBackup]);
    topology(&one, &two);
    println!("up and reaching its router after {:.1} s", start.elapsed().as_secs_f64());

    heading("the network list of node 1");
    println!("{:#}", one.list136());

    heading("ADD through libcni: two pods on node 1, one on node 2");
    let (a, b, c) = (Pod::new(), Pod::new(), Pod::new());
    let a_ip = attach(&one, "a", &a.eth0());
    let b_ip = attach(&one, "b", &b.eth0());
    let c_ip = attach(&two, "c", &c.eth0());
    println!("\nin pod a:");
    show(&a.run("ip -brief address show dev eth0").expect_ok().stdout);
    show(&a.run("ip route show").expect_ok().stdout);
    println!("on node 1, the bridge that the first ADD made, and its ports:");
    show_bridge(&one);

    heading("pings");
    for (from, to, what) in [
        (&a, "172.20.56.1", "pod a -> router"),
        (&a, b_ip.as_str(), "pod a -> pod b, same node"),
        (&a, c_ip.as_str(), "pod a -> pod c, other node"),
        (&c, a_ip.as_str(), "pod c -> pod a, other node"),
    ] {
        from.wait_for(to);
        println!("{what:28} {to:15} answers");
    }

    heading("the frames of one ping, seen at switch A's port to the router: tagged 136");
    print!("{}", sniff(&datacenter, &a));

    heading("the agent on node 1: another program deletes all rules and sets the bridge down");
    repair(&one, &a);

    heading("the agent on node 2: the bond fails over, no switch sees it, and pod c is silent");
    failover(&datacenter, &two, &c, &c_ip);

    heading("DEL");
    for (node, pod, name) in [(&one, &a, "a"), (&one, &b, "b"), (&two, &c, "c")] {
        node.client(&node.list136()).del(&pod.eth0()).expect_ok();
        assert!(!pod.has_link("eth0"), "pod {name} still has its interface");
        println!("pod {name}: interface and lease are gone");
    }
    assert!(one.leases("vlan136").is_empty() && two.leases("vlan136").is_empty());
    println!("bridge and uplink stay for the next pod:");
    show_bridge(&one);
    println!("\nshown in {:.1} s", start.elapsed().as_secs_f64());
}

/// What other programs break on a node, and what its agent reports.
fn repair(node: &BondedNode, pod: &Pod) {
    let ctl = Ctl::new(node);
    let agent = Agent::start(&ctl, "");
    let before = agent.reports();
    println!("  # nft flush ruleset\n  # ip link set br136 down");
    node.nft("flush ruleset");
    node.ip("link set br136 down");
    agent.await_report("restored bridge br136");
    agent.await_report("restored the pods' guards");
    pod.wait_for("172.20.56.1");
    show(agent.reports().strip_prefix(&before).expect("a log only grows"));
    println!("pod a -> router: answers");
    agent.end();
}

/// The switches of a silent pod's node learn where it is now, because the agent announces it.
fn failover(datacenter: &DataCenter, node: &BondedNode, pod: &Pod, address: &str) {
    let soon = Duration::from_secs(30);
    let ctl = Ctl::new(node);
    let agent = Agent::start(&ctl, "");
    node.monitor_by_arp();
    poll(soon, "the second NIC is active", || node.active_member() == "nic1");
    pod.await_silence(address);
    agent.await_report("bond0 sends through another member");
    let before = agent.reports();
    // The router must not ask for the pod's MAC, which would make the pod speak.
    let router = datacenter.router();
    let mac = pod.mac("eth0");
    router.ip(&format!("neigh replace {address} lladdr {mac} dev trunk.136 nud permanent"));
    poll(soon, "the router reaches pod c", || router.pings(address));
    println!("switch B loses its VLANs to switch A; all cables stay up");
    datacenter.cut_beyond_the_switch();
    poll(soon, "the first NIC is active", || node.active_member() == "nic0");
    let began = Instant::now();
    poll(soon, "the router reaches pod c", || router.pings(address));
    let took = began.elapsed().as_millis();
    show(agent.reports().strip_prefix(&before).expect("a log only grows"));
    println!("router -> pod c: answers {took} ms after the failover (emulated)");
    datacenter.restore_beyond_the_switch();
    agent.end();
}

/// The bridge and its ports.
fn show_bridge(node: &BondedNode) {
    for which in ["dev br136", "master br136"] {
        show(&node.run(&format!("ip -brief link show {which}")).expect_ok().stdout);
    }
}

fn heading(text: &str) {
    println!("\n=== {text}");
}

fn show(text: &str) {
    text.lines().for_each(|line| println!("  {}", line.trim_end()));
}

fn topology(one: &BondedNode, two: &BondedNode) {
    let (bond1, bond2) = (one.mode().name(), two.mode().name());
    let (node1, node2) = (one.address(51), two.address(51));
    let (slice1, slice2) = (one.slice(), two.slice());
    println!(
        "
   pods {slice1:28}pods {slice2}
        │ veth                           │ veth
      br136                            br136
        │                                │
   bond0.136  bond0.51 {node1:13}bond0.136  bond0.51 {node2}
        └──┬──┘                          └──┬──┘
         bond0 {bond1:27}bond0 {bond2}
        ┌──┴──┐                          ┌──┴──┐
      nic0   nic1                      nic0   nic1
        └──┬──┘                          │      │
    ┌──────┴─────────────────────────────┴──┐ ┌─┴────────┐
    │ switch A                              ├─┤ switch B │
    └──────┬────────────────────────────────┘ └──────────┘
        router: 10.51.0.1, 172.20.56.1, …
"
    );
}

/// Attaches a pod and returns its address.
fn attach(node: &BondedNode, name: &str, attachment: &Attachment) -> String {
    let start = Instant::now();
    let result = node.client(&node.list136()).add(attachment).result();
    let gateway = result.ips[0].gateway.map_or("none".to_owned(), |gateway| gateway.to_string());
    let (address, took) = (result.cidr(), start.elapsed().as_millis());
    println!("pod {name} on node {}: {address} via {gateway} ({took} ms, emulated)", node.number());
    result.address()
}

/// The lines of tcpdump for one ping from a pod to the router.
fn sniff(datacenter: &DataCenter, pod: &Pod) -> String {
    let (frames, messages) = (pod_file("frames"), pod_file("messages"));
    let mut command = datacenter.tor_a().command("tcpdump");
    // It would change to a user that a bare guest does not have, and end without a message.
    command.args(["-Z", "root", "-lnne", "-t", "-i", "router", "-c", "2", "icmp or (vlan 136 and icmp)"]);
    command.stdout(fs::File::create(&frames).unwrap()).stderr(fs::File::create(&messages).unwrap());
    let mut sniffer = Background::start(command.stdin(Stdio::null()));
    let soon = Duration::from_secs(20);
    poll(soon, "tcpdump listens", || fs::read_to_string(&messages).unwrap().contains("listening on"));
    assert!(pod.pings("172.20.56.1"));
    poll(soon, "tcpdump has seen request and reply", || !sniffer.is_alive());
    let text = fs::read_to_string(&frames).unwrap();
    assert_eq!(text.matches("vlan 136").count(), 2, "{text}");
    for file in [frames, messages] {
        fs::remove_file(file).unwrap();
    }
    text
}

fn pod_file(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("vlan-bridge-demo-{}-{name}", std::process::id()))
}
