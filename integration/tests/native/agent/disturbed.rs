//! An agent that is held up: stopped, started again, or beside calls and another program that
//! deletes rules.

use crate::attached::Clean;
use crate::repair::{Attached, Scene, with_attached_pods};
use integration::{Agent, Ctl, Pod, Site, Snapshot, note, poll, product};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than any repair takes on a busy machine. How long it takes is for the bench.
const SOON: Duration = Duration::from_secs(20);

fn break_it(scene: &Scene<'_>) {
    scene.site.node.nft("flush ruleset");
    scene.site.node.ip(&format!("link set {} nomaster", scene.ports[0]));
}

#[test]
fn what_breaks_while_the_agent_is_stopped_is_restored_when_it_goes_on() {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        let agent = Agent::start(ctl, "");
        agent.while_stopped(|| {
            break_it(scene);
            assert!(complaint().is_some());
        });
        poll(SOON, "CHECK and doctor without complaint", || complaint().is_none());
        assert!(works(), "{}", agent.reports());
    });
}

/// The netlink messages in strace's output that are no questions.
pub(super) fn changes(trace: &str) -> Vec<&str> {
    let types = trace.split("nlmsg_type=").skip(1).filter_map(|rest| rest.split(", ").next());
    types.filter(|kind| !is_question(kind)).collect()
}

/// Which of the traced messages change something, counted from 1.
pub(crate) fn places_of_changes(trace: &str) -> Vec<usize> {
    let lines = (1..).zip(trace.lines());
    lines.filter(|(_, line)| !changes(line).is_empty()).map(|(place, _)| place).collect()
}

/// strace does not name the types of a socket whose protocol it does not know. Of rtnetlink's, each fourth is
/// a question (`rtnetlink_rcv_msg`).
fn is_question(kind: &str) -> bool {
    let number = kind.strip_prefix("0x").and_then(|rest| rest.split(' ').next());
    let number = number.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    number.map_or(kind.contains("GET"), |number| number % 4 == 2)
}

#[test]
fn an_agent_that_starts_on_a_healthy_node_changes_nothing() {
    with_attached_pods(|Attached { ctl, scene, .. }| {
        let node = &scene.site.node;
        let trace = ctl.path("trace");
        let traced = || {
            let options = format!("-o {} -s 64 -e trace=sendto,sendmsg", trace.display());
            let agent = Agent::spawn_traced(ctl, &options);
            agent.await_first_look();
            agent.end();
            fs::read_to_string(&trace).unwrap()
        };
        let before = Snapshot::of(node);
        let healthy = traced();
        assert!(healthy.contains("GET"), "nothing was asked: {healthy}");
        assert_eq!(changes(&healthy), Vec::<&str>::new(), "{healthy}");
        before.assert_unchanged(node);
        break_it(scene);
        let broken = traced();
        assert!(changes(&broken).len() > 2, "a change is not seen: {broken}");
    });
}

/// A call that hangs may hold the locks of ADD and DEL for as long as it likes.
#[test]
fn a_pass_over_a_healthy_node_waits_for_no_lock() {
    // Locks of its own, because all nodes here share a folder.
    const SCRIPT: &str = "set -e
        for kind in /run/vlan-bridge/*/$1; do
            own=$2${kind#/run/vlan-bridge}
            mkdir -p ${own%/*}
            cp -a $kind $own
        done
        mount --bind $2 /run/vlan-bridge
        exec $3 agent";
    with_attached_pods(|Attached { ctl, scene, .. }| {
        let (script, folder) = (ctl.path("own.sh"), ctl.path("records"));
        fs::write(&script, SCRIPT).unwrap();
        fs::create_dir(&folder).unwrap();
        let held = ["attachments.lock", "node.lock"].map(|name| File::create(folder.join(name)).unwrap());
        held.iter().for_each(|lock| lock.lock().unwrap());
        let (node, tool) = (scene.site.node.cookie(), product().join("vlan-bridgectl"));
        let line = format!("{} {node} {} {}", script.display(), folder.display(), tool.display());
        let agent = Agent::start_as(ctl, ctl.command_of(Path::new("/bin/sh"), &line));
        assert!(!agent.reports().contains("restored"), "{}", agent.reports());
        scene.site.node.ip(&format!("link set {} nomaster", scene.ports[0]));
        let inode = held[0].metadata().unwrap().ino();
        poll(SOON, "a pass that waits", || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&format!(":{inode} ")))
        });
        drop(held);
        agent.await_report("it was in no bridge, and belongs to br136");
    });
}

#[test]
fn calls_beside_the_agent_succeed_while_rules_are_flushed() {
    const ROUNDS: usize = 40;
    let (clean, pod) = (Clean::new(), Pod::new());
    let node = &clean.site.node;
    let ctl = Ctl::new(node);
    let mut agent = Agent::start(&ctl, "");
    let is_done = AtomicBool::new(false);
    let flushes = std::thread::scope(|scope| {
        let flushing = scope.spawn(|| {
            let mut flushes = 0;
            while !is_done.load(Ordering::Relaxed) {
                node.nft("flush ruleset");
                flushes += 1;
            }
            flushes
        });
        for _ in 0..ROUNDS {
            let added = clean.plugin().add(&pod.eth0());
            let deleted = clean.plugin().del(&pod.eth0());
            if !(added.ok() && deleted.ok()) {
                is_done.store(true, Ordering::Relaxed);
                panic!("{added}\n{deleted}\n{}", agent.reports());
            }
        }
        is_done.store(true, Ordering::Relaxed);
        flushing.join().unwrap()
    });
    note(&format!("{flushes} flushes beside {ROUNDS} pods"));
    assert!(flushes > ROUNDS / 2, "{flushes} flushes only");
    assert!(agent.process().is_alive(), "{}", agent.reports());
    clean.plugin().add(&pod.eth0()).expect_ok();
    assert!(pod.pings(Site::GATEWAY));
    clean.plugin().del(&pod.eth0()).expect_ok();
    clean.assert_nothing_left(&pod);
}
