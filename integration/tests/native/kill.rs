//! SIGKILL at each system call that changes something. A repeated ADD succeeds, or a DEL cleans up, and
//! nothing is left.

use crate::attached::{Clean, FakeIpam};
use integration::{Call, Outcome, Pod, Site, note};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;

/// The system calls that change something: netlink, files, processes. A call that the kernel does not know by
/// this name, or that is never made, ends its round at once.
const CHANGING: [&str; 9] =
    ["sendto", "sendmsg", "write", "writev", "clone", "fork", "vfork", "mkdir", "setns"];

/// The system calls with which an IPAM plugin changes its store.
const STORING: [&str; 12] = [
    "open", "openat", "write", "link", "linkat", "rename", "renameat", "unlink", "unlinkat", "mkdir",
    "fsync", "flock",
];

/// More than any call here makes of one system call, so that the rounds end.
const FAR: usize = 200;

const SIGKILL: i32 = 9;

/// The threads of the plugin that are killed at a system call. Its IPAM plugin is never killed.
#[derive(Clone, Copy)]
pub enum Threads {
    Main,
    All,
}

/// Runs a call and kills it as it enters its `nth` call of `syscall`. None if it ended before that.
fn killed(call: &Call<'_>, syscall: &str, nth: usize, threads: Threads) -> Option<Outcome> {
    let inject = format!("inject={syscall}:signal=KILL:when={nth}");
    let mut words = vec!["strace", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", &inject];
    if matches!(threads, Threads::All) {
        // Also the plugin's own children, but not the programs that they execute.
        words.extend(["-f", "-b", "execve"]);
    }
    let outcome = call.run_under(&words);
    if outcome.status.signal() == Some(SIGKILL) {
        return Some(outcome);
    }
    // If a child of the plugin was killed, its parent reports that.
    (!outcome.ok()).then_some(outcome)
}

/// Kills `call` at every point in turn. `prepare` comes before each, `judge` after it; it comes after the
/// unharmed run that ends each round as well.
pub fn at_every_point(
    syscalls: &[&str],
    threads: Threads,
    call: &Call<'_>,
    prepare: impl Fn(),
    judge: impl Fn(usize),
) {
    let mut points = 0;
    for syscall in syscalls {
        for nth in 1..FAR {
            prepare();
            let outcome = killed(call, syscall, nth, threads);
            judge(nth);
            if outcome.is_none() {
                break;
            }
            points += 1;
        }
    }
    note(&format!("killed at {points} points"));
    assert!(points > 3, "killed at {points} points only");
}

/// Repeats a killed ADD. It is only refused if the kill came after the last change, because the attachment is
/// then complete. Then a DEL comes first, as from a runtime after a failed ADD.
fn add_again(clean: &Clean, pod: &Pod) {
    let again = clean.plugin().add(&pod.eth0());
    if !again.ok() {
        assert_eq!(again.error_code(), 100, "{again}");
        assert!(is_finished(clean, pod), "refused, but not finished: {again}");
        clean.plugin().del(&pod.eth0()).expect_ok();
        clean.plugin().add(&pod.eth0()).expect_ok();
    }
    assert!(pod.pings(Site::GATEWAY), "the pod does not reach its router");
}

fn is_finished(clean: &Clean, pod: &Pod) -> bool {
    let links = clean.site.node.ip_json("link show type veth");
    let finished = format!("vlan-bridge pod {} eth0 {}", Site::NETWORK, pod.id());
    links.as_array().unwrap().iter().any(|link| link["ifalias"] == finished.as_str())
}

/// On a bare node, so that the kill also interrupts the steps that make bridge and uplink.
fn killed_and_repeated(threads: Threads) {
    let (clean, pod) = (Clean::new(), Pod::new());
    let add = clean.plugin().call("ADD", &pod.eth0());
    let prepare = || clean.make_bare();
    at_every_point(&CHANGING, threads, &add, prepare, |_| {
        add_again(&clean, &pod);
        clean.plugin().del(&pod.eth0()).expect_ok();
        clean.assert_nothing_left(&pod);
    });
}

#[test]
fn an_add_that_was_killed_succeeds_when_repeated() {
    killed_and_repeated(Threads::Main);
}

#[test]
fn an_add_that_was_killed_in_any_thread_succeeds_when_repeated() {
    killed_and_repeated(Threads::All);
}

#[test]
fn del_clears_what_a_killed_add_left() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let add = clean.plugin().call("ADD", &pod.eth0());
    at_every_point(
        &CHANGING,
        Threads::All,
        &add,
        || (),
        |nth| {
            let (with, without) = (pod.eth0(), pod.eth0().without_netns());
            let order = if nth % 2 == 0 { [&with, &without] } else { [&without, &with] };
            for attachment in order {
                clean.plugin().del(attachment).expect_ok();
            }
            clean.assert_nothing_left(&pod);
        },
    );
}

/// Our IPAM plugin runs within an ADD, and dies with it: by a signal as by a panic, which aborts.
#[test]
fn an_add_that_dies_within_ipam_leaves_nothing_that_a_later_call_minds() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let add = clean.plugin().call("ADD", &pod.eth0());
    at_every_point(
        &STORING,
        Threads::Main,
        &add,
        || (),
        |nth| {
            match nth % 3 {
                0 => add_again(&clean, &pod),
                1 => drop(clean.plugin().with("cni.dev/valid-attachments", json!([])).gc().expect_ok()),
                _ => {}
            }
            clean.plugin().del(&pod.eth0()).expect_ok();
            clean.assert_nothing_left(&pod);
        },
    );
}

#[test]
fn a_del_that_was_killed_succeeds_when_repeated() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let del = clean.plugin().call("DEL", &pod.eth0());
    let prepare = || drop(clean.plugin().add(&pod.eth0()).expect_ok());
    for threads in [Threads::Main, Threads::All] {
        at_every_point(&CHANGING, threads, &del, prepare, |_| {
            clean.plugin().del(&pod.eth0()).expect_ok();
            clean.assert_nothing_left(&pod);
            clean.plugin().del(&pod.eth0().without_netns()).expect_ok();
        });
    }
}

/// Our IPAM plugin behind a script that kills it as it enters its `nth` call of `syscall` on `verb`.
fn killed_ipam(verb: &str, syscall: &str, nth: usize, first: &str) -> FakeIpam {
    let inject = format!("inject={syscall}:signal=KILL:when={nth}");
    // The configuration is read first. A plugin that is killed before it has written it would leave IPAM
    // without one.
    let script = format!(
        "[ \"$CNI_COMMAND\" = {verb} ] || exec \"$real\"\n\
         cat > \"$folder/config\"\n\
         {first}\n\
         strace -qq -f -o /dev/null -e signal=none -e {inject} \"$real\" < \"$folder/config\"\n\
         status=$?\n\
         echo $status > \"$folder/status\"\n\
         exit $status"
    );
    FakeIpam::new("vlan-bridge-ipam", &script)
}

/// Whether IPAM was killed. If the plugin is already dead, IPAM fails without a kill, because no process
/// reads its answer.
fn was_killed(ipam: &FakeIpam) -> bool {
    ipam.read("status").trim() == "137"
}

/// Kills IPAM's `verb` at every point in turn.
fn ipam_at_every_point(verb: &str, first: &str, run: impl Fn(&FakeIpam)) {
    let mut points = 0;
    for syscall in STORING {
        for nth in 1..FAR {
            let ipam = killed_ipam(verb, syscall, nth, first);
            run(&ipam);
            if !was_killed(&ipam) {
                break;
            }
            points += 1;
        }
    }
    note(&format!("IPAM killed at {points} points of {verb}"));
    assert!(points > 3, "IPAM was killed at {points} points only");
}

#[test]
fn an_add_whose_ipam_was_killed_fails_and_leaves_nothing() {
    let (clean, pod) = (Clean::new(), Pod::new());
    ipam_at_every_point("ADD", "", |ipam| {
        let outcome = ipam.before(clean.plugin().call("ADD", &pod.eth0())).run();
        assert_eq!(outcome.ok(), !was_killed(ipam), "an ADD without an address is no success: {outcome}");
        if outcome.ok() {
            clean.plugin().del(&pod.eth0()).expect_ok();
        } else {
            assert_eq!(outcome.error_code(), 103, "{outcome}");
        }
        clean.assert_nothing_left(&pod);
    });
}

#[test]
fn a_del_whose_ipam_was_killed_succeeds_when_repeated() {
    let (clean, pod) = (Clean::new(), Pod::new());
    ipam_at_every_point("DEL", "", |ipam| {
        clean.plugin().add(&pod.eth0()).expect_ok();
        let outcome = ipam.before(clean.plugin().call("DEL", &pod.eth0())).run();
        assert_eq!(
            outcome.ok(),
            !was_killed(ipam),
            "a lease that was not given back is no success: {outcome}"
        );
        assert!(!pod.has_link("eth0"), "IPAM's failure keeps the link");
        clean.plugin().del(&pod.eth0().without_netns()).expect_ok();
        clean.assert_nothing_left(&pod);
    });
}

/// As if a container engine's whole control group was killed.
#[test]
fn an_add_killed_with_its_ipam_succeeds_when_repeated() {
    let (clean, pod) = (Clean::new(), Pod::new());
    // An IPAM plugin that knows of the death would not even begin.
    ipam_at_every_point("ADD", "kill -9 $PPID; unset VLAN_BRIDGE_PID", |ipam| {
        let outcome = ipam.before(clean.plugin().call("ADD", &pod.eth0())).run();
        assert_eq!(outcome.status.signal(), Some(SIGKILL), "{outcome}");
        add_again(&clean, &pod);
        clean.plugin().del(&pod.eth0()).expect_ok();
        clean.assert_nothing_left(&pod);
    });
}
