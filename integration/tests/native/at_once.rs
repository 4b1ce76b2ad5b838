//! DEL returns when the kernel has announced that the link is gone, but before the kernel has finished. A
//! caller must not notice that.

use crate::attached::Clean;
use integration::{Call, Namespace, Outcome, Pod, Scratch, not_tried, note, poll};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

const CYCLES: usize = 20;

/// The running processes of our plugin in a namespace.
fn plugins_in(node: &Namespace) -> usize {
    let own = node.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let here = processes.filter(|process| fs::read_link(process.join("ns/net")).is_ok_and(|net| net == own));
    here.filter(|process| fs::read_to_string(process.join("comm")).is_ok_and(|name| name == "vlan-bridge\n"))
        .count()
}

/// Whether no process has the other end of a pipe open.
fn is_at_its_end(mut pipe: impl Read + AsFd) -> bool {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    match pipe.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

/// Runs a call as a runtime does: waits for the end of the process, then reads the available output.
fn run_and_look_at_pipes(node: &Namespace, call: &Call<'_>) {
    node.enter(|| {
        let mut command = call.bare_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(call.input()).unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        assert!(child.wait().unwrap().success());
        assert!(is_at_its_end(stdout), "stdout is held open after the end");
        assert!(is_at_its_end(stderr), "stderr is held open after the end");
    });
}

#[test]
fn name_address_and_pipes_are_free_when_del_returns_and_nobody_of_ours_stays() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let node = clean.site.node.namespace();
    let mac = json!({"mac": "02:00:00:00:00:07"});
    let eth0 = pod.eth0().capabilities(mac).args("IP=172.20.56.20");
    let del = clean.plugin().call("DEL", &eth0);
    let mut lingering = 0;
    for _ in 0..CYCLES {
        clean.plugin().add(&eth0).expect_ok();
        run_and_look_at_pipes(node, &del);
        lingering += plugins_in(node);
        assert!(!pod.has_link("eth0"));
    }
    note(&format!("{lingering} children were seen in the kernel after {CYCLES} DELs"));
    poll(Duration::from_secs(1), "the end of every process of ours", || plugins_in(node) == 0);
    clean.assert_nothing_left(&pod);
}

#[test]
fn del_does_without_the_child_when_it_dies_or_cannot_be_had() {
    let (clean, pod) = (Clean::new(), Pod::new());
    // Only the child changes its folder, and it does so before it asks.
    let trace = Scratch::new("trace");
    let trace = trace.path().join("calls");
    let rounds =
        [("chdir", "signal=KILL", "+++ killed by SIGKILL +++"), ("fork", "error=EAGAIN", "(INJECTED)")];
    for (call, harm, mark) in rounds {
        clean.plugin().add(&pod.eth0()).expect_ok();
        let (inject, shown) = (format!("inject={call}:{harm}"), format!("trace={call}"));
        let output = trace.to_str().unwrap();
        let words = ["strace", "-f", "-b", "execve", "-q", "-o", output, "-e", &shown, "-e", &inject];
        clean.plugin().call("DEL", &pod.eth0()).run_under(&words).expect_ok();
        clean.assert_nothing_left(&pod);
        if !fs::read_to_string(&trace).unwrap().contains(mark) {
            // glibc's fork() makes another system call than musl's.
            not_tried(&format!("this build calls no {call}: the child that cannot be had"));
        }
    }
}

#[test]
fn of_the_same_add_at_once_one_wins_and_nothing_stays() {
    let clean = Clean::new();
    for round in 0..CYCLES {
        let (pod, plugin) = (Pod::new(), clean.plugin().with("guard", json!(true)));
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let adds: Vec<_> = (0..6).map(|_| scope.spawn(|| plugin.add(&pod.eth0()))).collect();
            adds.into_iter().map(|add| add.join().unwrap()).collect()
        });
        let (won, lost): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|outcome| outcome.ok());
        assert_eq!(won.len(), 1, "round {round}: {won:#?}");
        for outcome in lost {
            assert_eq!(outcome.error_code(), 100, "{outcome}");
        }
        plugin.check(&pod.eth0(), &won[0].json()).expect_ok();
        plugin.del(&pod.eth0()).expect_ok();
        clean.assert_nothing_left(&pod);
    }
}

#[test]
fn two_interfaces_of_a_pod_are_attached_at_once() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let plugin = clean.plugin();
    std::thread::scope(|scope| {
        for ifname in ["eth0", "net1", "net2"] {
            let (plugin, interface) = (&plugin, pod.interface(ifname));
            scope.spawn(move || plugin.add(&interface).expect_ok());
        }
    });
    for ifname in ["eth0", "net1", "net2"] {
        plugin.del(&pod.interface(ifname)).expect_ok();
    }
    clean.assert_nothing_left(&pod);
}
