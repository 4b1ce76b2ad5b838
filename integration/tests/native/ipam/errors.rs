//! Each system call of an ADD and a DEL fails once, twice in a row, or from then on, as with a full or broken
//! disk. A later DEL on a healthy disk leaves nothing, and the next ADDs get every free address.

use crate::ipam::Ipam;
use integration::{Call, Outcome, eth0, note};
use serde_json::json;
use std::collections::BTreeSet;

/// All system calls that change a store, by their names in either C library, and the errors of a disk.
const REFUSED: [(&str, &str); 12] = [
    ("open", "ENOSPC"),
    ("openat", "ENOSPC"),
    ("write", "ENOSPC"),
    ("pwrite64", "ENOSPC"),
    ("link", "ENOSPC"),
    ("linkat", "ENOSPC"),
    ("rename", "ENOSPC"),
    ("unlink", "EIO"),
    ("unlinkat", "EIO"),
    ("mkdir", "ENOSPC"),
    ("ftruncate", "EIO"),
    ("utimensat", "EIO"),
];
/// More than any call here makes of one system call, so that the rounds end.
const FAR: usize = 60;
const CAPACITY: usize = 3;

fn store() -> Ipam {
    let end = format!("10.1.0.{}", 1 + CAPACITY);
    Ipam::new(json!({"cooldown": 0, "ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": end}],
        [{"subnet": "fd09::/120"}]]}))
}

/// Whether the system call was made at all.
fn refused(call: &Call<'_>, syscall: &str, error: &str, when: &str) -> (Outcome, bool) {
    let inject = format!("inject={syscall}:error={error}:when={when}");
    let trace = format!("trace={syscall}");
    let outcome = call.run_under(&[
        "strace",
        "-qq",
        "-o",
        "/proc/self/fd/2",
        "-e",
        "signal=none",
        "-e",
        &trace,
        "-e",
        &inject,
    ]);
    let was = outcome.stderr.contains("(INJECTED)");
    (outcome, was)
}

/// Fails each system call of a verb in turn, and calls `judge` on the store.
fn at_every_point(verb: &str, ipam: &Ipam, prepare: impl Fn(), judge: impl Fn(&str, &Outcome)) {
    let (mut points, mut failures) = (0, 0);
    for (syscall, error) in REFUSED {
        for span in ["", "+1", "+"] {
            for nth in 1..FAR {
                prepare();
                let when = match span {
                    "+1" => format!("{nth}..{}", nth + 1),
                    _ => format!("{nth}{span}"),
                };
                let plugin = ipam.plugin();
                let (outcome, was) = refused(&plugin.call(verb, &eth0("pod1")), syscall, error, &when);
                judge(&format!("{syscall} {error} at {when}"), &outcome);
                if !was {
                    break;
                }
                points += 1;
                failures += usize::from(!outcome.ok());
            }
        }
    }
    note(&format!("{verb}: refused at {points} points, {failures} failures"));
    assert!(points > 30 && failures > 5, "{points} points, {failures} failures");
}

/// Every address can be assigned once, and released.
fn is_right(ipam: &Ipam, point: &str) {
    assert_eq!(
        ipam.records(),
        ipam.leases().values().map(|_| "warm:eth0").take(1).collect::<Vec<_>>(),
        "{point}"
    );
    let mut held: BTreeSet<String> = ipam.leases().into_keys().collect();
    assert_eq!(held.len(), 2, "{point}");
    for i in 1..CAPACITY {
        let addr = ipam.plugin().add(&eth0(&format!("fill{i}"))).result().address();
        assert!(held.insert(addr.clone()), "{addr} was given twice after {point}");
    }
    for i in 1..CAPACITY {
        ipam.plugin().del(&eth0(&format!("fill{i}"))).expect_ok();
    }
}

#[test]
fn an_add_whose_disk_refuses_leaves_nothing_that_del_does_not_free() {
    let ipam = store();
    ipam.plugin().add(&eth0("warm")).expect_ok();
    at_every_point(
        "ADD",
        &ipam,
        || {},
        |point, outcome| {
            let of_pod = ipam.leases().values().filter(|lease| lease.starts_with("pod1")).count();
            assert!(!outcome.ok() || of_pod == 2, "{point}: {of_pod} leases\n{outcome}");
            ipam.plugin().del(&eth0("pod1")).expect_ok();
            assert_eq!(ipam.leases().len(), 2, "{point}: {:?}\n{outcome}", ipam.leases());
            is_right(&ipam, point);
        },
    );
}

#[test]
fn a_del_whose_disk_refuses_can_be_repeated() {
    let ipam = store();
    ipam.plugin().add(&eth0("warm")).expect_ok();
    let add = || drop(ipam.plugin().add(&eth0("pod1")).expect_ok());
    at_every_point("DEL", &ipam, add, |point, outcome| {
        if outcome.ok() {
            assert_eq!(ipam.leases().len(), 2, "{point}: {:?}\n{outcome}", ipam.leases());
        }
        ipam.plugin().del(&eth0("pod1")).expect_ok();
        assert_eq!(ipam.leases().len(), 2, "{point}: {:?}\n{outcome}", ipam.leases());
        is_right(&ipam, point);
    });
}
