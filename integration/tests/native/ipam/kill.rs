//! SIGKILL at each system call of an ADD and a DEL. The next call is right, for any verb and any caller.

use crate::ipam::Ipam;
use integration::{Call, eth0, note};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

/// All system calls that read or change a store, by their names in either C library.
const SYSCALLS: [&str; 17] = [
    "open",
    "openat",
    "read",
    "pread64",
    "write",
    "pwrite64",
    "link",
    "linkat",
    "rename",
    "unlink",
    "unlinkat",
    "mkdir",
    "flock",
    "utimensat",
    "fstat",
    "close",
    "lstat",
];

/// More than any call here makes of one system call, so that the rounds end.
const FAR: usize = 200;

/// Kills a call as it enters each of its system calls in turn, with `prepare` before and `judge` after each.
fn at_every_point(call: &Call<'_>, mut prepare: impl FnMut(), mut judge: impl FnMut(usize)) {
    let mut points = 0;
    for syscall in SYSCALLS {
        for nth in 1..FAR {
            prepare();
            let inject = format!("inject={syscall}:signal=KILL:when={nth}");
            let outcome =
                call.run_under(&["strace", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", &inject]);
            judge(points);
            if outcome.status.signal().is_none() {
                outcome.expect_ok();
                break;
            }
            points += 1;
        }
    }
    note(&format!("killed at {points} points"));
    assert!(points > 40, "killed at {points} points only");
}

/// Takes the rest of the range, and expects every address exactly once.
fn fill(ipam: &Ipam, size: usize) {
    let mut held: BTreeSet<String> = ipam.leases().into_keys().collect();
    for i in held.len()..size {
        let addr = ipam.plugin().add(&eth0(&format!("fill{i}"))).result().address();
        assert!(held.insert(addr.clone()), "{addr} was given twice");
    }
    assert_eq!(ipam.plugin().add(&eth0("more")).error_code(), 11);
    for i in 0..size {
        ipam.plugin().del(&eth0(&format!("fill{i}"))).expect_ok();
    }
}

/// The state after each round: only the neighbour is there, and its lease is known.
fn only_the_neighbour(ipam: &Ipam) {
    assert_eq!(ipam.leases().into_values().collect::<Vec<_>>(), ["neighbour\r\neth0"]);
    ipam.plugin().check(&eth0("neighbour"), &serde_json::json!({})).expect_ok();
    assert_eq!(ipam.records(), ["neighbour:eth0"]);
}

fn with_neighbour() -> Ipam {
    let ipam = Ipam::until(5);
    ipam.plugin().add(&eth0("neighbour")).expect_ok();
    ipam
}

#[test]
fn after_an_add_that_was_killed() {
    let ipam = with_neighbour();
    let add = ipam.plugin().call("ADD", &eth0("c1"));
    at_every_point(
        &add,
        || (),
        |point| {
            match point % 3 {
                // The runtime tries again.
                0 => {
                    let again = ipam.plugin().add(&eth0("c1"));
                    if !again.ok() {
                        assert_eq!(again.error_code(), 110, "{again}");
                    }
                }
                // host-local cleans up.
                1 => drop(ipam.host_local().del(&eth0("c1")).expect_ok()),
                _ => {}
            }
            ipam.plugin().del(&eth0("c1")).expect_ok();
            fill(&ipam, 4);
            only_the_neighbour(&ipam);
        },
    );
}

#[test]
fn others_after_an_add_that_was_killed() {
    let ipam = with_neighbour();
    let add = ipam.plugin().call("ADD", &eth0("c1"));
    at_every_point(
        &add,
        || (),
        |_| {
            // c1 has an address or has none, and the others get the rest.
            fill(&ipam, 4);
            ipam.plugin().del(&eth0("c1")).expect_ok();
            only_the_neighbour(&ipam);
        },
    );
}

#[test]
fn after_a_del_that_was_killed() {
    let ipam = with_neighbour();
    let del = ipam.plugin().call("DEL", &eth0("c1"));
    let prepare = || drop(ipam.plugin().add(&eth0("c1")).expect_ok());
    at_every_point(&del, prepare, |point| {
        if point % 2 == 0 {
            fill(&ipam, 4);
        }
        ipam.plugin().del(&eth0("c1")).expect_ok();
        fill(&ipam, 4);
        only_the_neighbour(&ipam);
    });
}

#[test]
fn after_the_look_at_everything_was_killed() {
    let ipam = with_neighbour();
    let add = ipam.plugin().call("ADD", &eth0("c1"));
    // host-local has changed the store, so that the killed ADD notices the change.
    let prepare = || {
        ipam.host_local().add(&eth0("theirs")).expect_ok();
        std::fs::write(ipam.store().join("10.1.0.200"), "").unwrap();
    };
    at_every_point(&add, prepare, |_| {
        for id in ["c1", "theirs"] {
            ipam.plugin().del(&eth0(id)).expect_ok();
        }
        only_the_neighbour(&ipam);
    });
}
