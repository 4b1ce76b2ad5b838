//! A stranger's links and rules that come and go by the hundred.

use crate::repair::{Attached, Scene, with_attached_pods};
use integration::{Agent, Node, note, poll};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Longer than any repair takes on a busy machine, and shorter than the pause between two looks.
const SOON: Duration = Duration::from_secs(20);
/// Pairs of links that come and go at once.
const LINKS: usize = 200;
/// Elements of a table, and how often it comes and goes: the kernel announces each element.
const ELEMENTS: usize = 8000;
const ROUNDS: usize = 4;
/// How often the links come and go after what was broken is restored.
const MORE: usize = 3;
/// The growth that an allocator explains, in KiB.
const GROWTH: f64 = 4096.0;
/// After the pass that restores, one more for what that pass changed, and some for a busy machine.
const FEW: u64 = 5;

fn break_it(scene: &Scene<'_>) {
    scene.site.node.nft("flush ruleset");
    scene.site.node.ip(&format!("link set {} nomaster", scene.ports[0]));
}

/// How many sockets of the namespace that listen to announcements have lost some.
fn overflowed(node: &Node) -> usize {
    let sockets = node.read("/proc/thread-self/net/netlink");
    let lost = sockets.lines().skip(1).filter(|line| {
        let field = |index: usize| line.split_whitespace().nth(index).unwrap_or("0");
        field(3) != "00000000" && field(8) != "0"
    });
    lost.count()
}

/// Links that come, go up and go.
fn flip_links(node: &Node) {
    let lines = |line: fn(usize) -> String| (0..LINKS).map(line).collect::<Vec<_>>().join("\n");
    node.ip(&lines(|i| format!("link add storm{i} group 77 type veth peer name calm{i}")));
    node.ip("link set group 77 up");
    node.ip("link del group 77");
}

/// A table with many elements that comes and goes.
fn flip_rules(node: &Node) {
    let ports = (1..=ELEMENTS).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
    for _ in 0..ROUNDS {
        node.nft(&format!(
            "table inet storm {{\n set ports {{\n type inet_service\n elements = {{ {ports} }}\n }}\n}}"
        ));
        node.nft("delete table inet storm");
    }
}

/// How many passes the node's agent has made.
fn passes(node: &Node) -> u64 {
    let path = format!("/run/vlan-bridge/agent/{}/state.json", node.cookie());
    let state: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    state["health"]["passes"].as_u64().unwrap()
}

/// Whether the port of the first pod is in its bridge.
fn is_in_bridge(scene: &Scene<'_>) -> bool {
    scene.site.node.ip_json(&format!("link show dev {}", scene.ports[0]))[0]["master"] == "br136"
}

/// Ends a storm when it is dropped, also by a test that fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_breaks_among_announcements_that_are_lost_is_restored_by_a_few_passes_and_memory_is_bounded() {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        let node = &scene.site.node;
        let agent = Agent::start(ctl, "");
        let storm = || {
            let before = passes(node);
            agent.while_stopped(|| {
                flip_rules(node);
                flip_links(node);
                break_it(scene);
                assert_eq!(overflowed(node), 2, "of the agent's two sockets");
            });
            poll(SOON, "CHECK and doctor without complaint", || complaint().is_none());
            let made = passes(node) - before;
            assert!(made <= FEW, "{made} passes\n{}", agent.reports());
            // Not the pages of the program's file, which are read as they are needed.
            agent.memory("RssAnon")
        };
        // A pass needs memory for all links of the node, and an allocator keeps it.
        let first = storm();
        let second = storm();
        assert!(works(), "{}", agent.reports());
        note(&format!("memory of its own after a storm and after another: {first} and {second} KiB"));
        assert!(second < first + GROWTH, "{first} KiB, {second} KiB");
    });
}

#[test]
fn what_breaks_in_a_storm_that_lasts_is_restored_before_its_end() {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        let node = &scene.site.node;
        let agent = Agent::start(ctl, "");
        let (is_over, storms) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    flip_links(node);
                    storms.fetch_add(1, Ordering::Relaxed);
                }
            });
            let end = Ending(&is_over);
            poll(SOON, "a storm", || storms.load(Ordering::Relaxed) > 0);
            node.ip(&format!("link set {} nomaster", scene.ports[0]));
            poll(SOON, "the port in its bridge", || is_in_bridge(scene));
            let then = storms.load(Ordering::Relaxed);
            poll(SOON, "more of the storm", || storms.load(Ordering::Relaxed) >= then + MORE);
            drop(end);
        });
        poll(SOON, "CHECK and doctor without complaint", || complaint().is_none());
        assert!(works(), "{}", agent.reports());
    });
}
