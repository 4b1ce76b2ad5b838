//! SIGKILL in NAT mode, at each system call that changes something.

use crate::kill::{Threads, at_every_point};
use crate::nat::{Nat, with_ports};
use integration::{Attachment, Pod};

const PORTS: [(u16, &str, u16, &str); 3] =
    [(8080, "tcp", 80, ""), (8080, "udp", 80, ""), (8081, "tcp", 80, "192.0.2.2")];

/// The system calls with which NAT changes its records.
const CHANGING: [&str; 8] = ["sendto", "sendmsg", "write", "mkdir", "openat", "rename", "unlink", "rmdir"];

/// Kills an ADD at each of its changes, and calls `after` to clean up each time.
fn after_killed_adds(after: impl Fn(&Nat, &Pod, &Attachment, usize)) {
    let (nat, pod) = (Nat::new(), Pod::new());
    let eth0 = with_ports(&pod, &PORTS);
    let add = nat.local().call("ADD", &eth0);
    let judge = |nth| {
        after(&nat, &pod, &eth0, nth);
        nat.assert_nothing_left();
    };
    at_every_point(&CHANGING, Threads::Main, &add, || (), judge);
}

#[test]
fn del_clears_what_a_killed_add_with_nat_left() {
    after_killed_adds(|nat, pod, eth0, nth| {
        let forgotten = pod.eth0().without_netns();
        nat.local().del(if nth % 2 == 0 { eth0 } else { &forgotten }).expect_ok();
    });
}

#[test]
fn an_add_with_nat_that_was_killed_succeeds_when_repeated() {
    after_killed_adds(|nat, pod, eth0, _| {
        let again = nat.local().add(eth0);
        if !again.ok() {
            assert_eq!(again.error_code(), 100, "{again}");
            nat.local().del(eth0).expect_ok();
            nat.local().add(eth0).expect_ok();
        }
        assert_eq!(nat.count(pod.id()), 13, "{}", nat.rules());
        nat.local().del(eth0).expect_ok();
    });
}

#[test]
fn a_del_with_nat_that_was_killed_succeeds_when_repeated() {
    let (nat, pod) = (Nat::new(), Pod::new());
    let eth0 = with_ports(&pod, &PORTS);
    let del = nat.local().call("DEL", &eth0);
    let prepare = || drop(nat.local().add(&eth0).expect_ok());
    at_every_point(&CHANGING, Threads::Main, &del, prepare, |_| {
        nat.local().del(&pod.eth0().without_netns()).expect_ok();
        nat.assert_nothing_left();
    });
}
