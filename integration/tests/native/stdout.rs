//! A result that no process can read: the ADD fails, and everything is removed.

use crate::attached::Clean;
use crate::ipam::Ipam;
use integration::{Call, Outcome, Pod, eth0, plugin, run};
use std::process::Command;

/// The shell lines that run the plugin `"$0"` and treat its stdout.
const LOST: [(&str, &str); 3] = [
    ("closed", "exec \"$0\" >&-"),
    ("full", "exec \"$0\" >/dev/full"),
    // The reader has ended before the plugin writes.
    (
        "without a reader",
        "hole=$(mktemp -u); mkfifo $hole; exec 3<>$hole 4>$hole 3>&-; rm $hole; exec \"$0\" >&4 4>&-",
    ),
];

#[track_caller]
fn fails(call: &Call<'_>, what: &str, script: &str) -> Outcome {
    let outcome = call.run_under(&["sh", "-c", script]);
    assert_eq!(outcome.status.code(), Some(1), "{what}: {outcome}");
    assert!(outcome.stderr.contains("stdout: cannot write"), "{what}: {outcome}");
    outcome
}

#[test]
fn an_add_whose_result_is_lost_fails_and_is_undone() {
    let clean = Clean::new();
    for (what, script) in LOST {
        let pod = Pod::new();
        fails(&clean.plugin().call("ADD", &pod.eth0()), what, script);
        clean.assert_nothing_left(&pod);
        clean.plugin().del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn so_does_that_of_the_ipam_plugin() {
    let ipam = Ipam::until(5);
    for (what, script) in LOST {
        fails(&ipam.plugin().call("ADD", &eth0("c1")), what, script);
        assert!(ipam.leases().is_empty() && ipam.records().is_empty(), "{what}");
    }
    // DEL prints nothing, so no output is lost.
    ipam.plugin().add(&eth0("c1")).expect_ok();
    let outcome = ipam.plugin().call("DEL", &eth0("c1")).run_under(&["sh", "-c", LOST[0].1]);
    assert!(outcome.ok() && ipam.leases().is_empty(), "{outcome}");
    let version = ipam.plugin().call_without_attachment("VERSION").run_under(&["sh", "-c", LOST[0].1]);
    assert_eq!(version.status.code(), Some(1), "{version}");
}

#[test]
fn a_tool_that_nobody_can_read_fails() {
    for (program, words) in [
        ("vlan-bridge-ipam", "list"),
        ("vlan-bridge-ipam", "--version"),
        ("vlan-bridge", "--help"),
        ("vlan-bridgectl", "status"),
    ] {
        let script = format!("exec {} {words} >&-", plugin(program).display());
        let outcome = run(Command::new("sh").args(["-c", &script]).env_remove("CNI_COMMAND"));
        assert!(!outcome.ok(), "{program} {words}: {outcome}");
    }
}
