//! The lock of the address store, held by a process that does not release it. No call waits for ever, and
//! each names the process.

use crate::doctor::{find, with_pod};
use crate::ipam::{Ipam, here};
use integration::{Ctl, Node, Outcome, eth0, plugin, poll, run};
use serde_json::json;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Less than two of a call's time limits.
const LIMIT: Duration = Duration::from_secs(35);

/// A process that has inherited a lock from an ended process, as after a shell's `flock 9`.
struct Heir(Child);

impl Heir {
    fn of(lock: &Path) -> Heir {
        let script = format!("exec 9>>'{}' && flock -n 9 && exec sleep 300", lock.display());
        let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        let heir = Heir(child);
        poll(Duration::from_secs(10), "a lock that is held", || {
            File::open(lock).unwrap().try_lock().is_err() && heir.shown().contains("sleep")
        });
        heir
    }

    fn shown(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.0.id())).unwrap()
    }

    /// Its name in messages.
    fn named(&self) -> String {
        format!("process {} (sleep: sleep 300)", self.0.id())
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_lock_that_is_never_let_go_ends_every_call_and_its_holder_is_named() {
    let ipam = Ipam::until(20);
    ipam.plugin().add(&eth0("c1")).expect_ok();
    let heir = Heir::of(&ipam.store().join("lock"));
    let check = |code: u64, outcome: &Outcome, took: Duration| {
        assert!(took < LIMIT, "{took:?}: {outcome}");
        assert_eq!(outcome.error_code(), code, "{outcome}");
        assert!(outcome.error_text().contains(&heir.named()), "{outcome}");
    };
    let plugin = ipam.plugin().with("cni.dev/valid-attachments", json!([]));
    thread::scope(|scope| {
        for (verb, code) in [("ADD", 11), ("DEL", 11), ("GC", 11), ("STATUS", 50)] {
            let (plugin, check) = (&plugin, &check);
            scope.spawn(move || {
                let call = match verb {
                    "ADD" => plugin.call(verb, &eth0("c2")),
                    "DEL" => plugin.call(verb, &eth0("c1")),
                    _ => plugin.call_without_attachment(verb),
                };
                let begin = Instant::now();
                let outcome = here(&call);
                check(code, &outcome, begin.elapsed());
            });
        }
    });
    assert_eq!(ipam.leases().len(), 1);
    drop(heir);
    ipam.plugin().add(&eth0("c2")).expect_ok();
    ipam.plugin().del(&eth0("c1")).expect_ok();
}

#[test]
fn who_only_looks_is_told_who_holds_the_lock() {
    let ipam = Ipam::until(20);
    ipam.plugin().add(&eth0("c1")).expect_ok();
    let heir = Heir::of(&ipam.store().join("lock"));
    thread::scope(|scope| {
        for words in
            [&["list"][..], &["usage"], &["check"], &["show", "10.1.0.2"], &["release", "10.1.0.2", "-y"]]
        {
            let (heir, ipam) = (&heir, &ipam);
            scope.spawn(move || {
                let mut command = Command::new(self::plugin("vlan-bridge-ipam"));
                command.args(words).arg("--data-dir").arg(ipam.node.data_dir()).env_remove("CNI_COMMAND");
                let outcome = run(&mut command);
                assert!(!outcome.ok() && outcome.stderr.contains(&heir.named()), "{outcome}");
            });
        }
    });
}

#[test]
fn doctor_and_status_go_on_and_name_the_holder() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (_pod, _) = with_pod(&node, &ctl);
    let heir = Heir::of(&node.data_dir().join("local").join("lock"));
    let status = ctl.run("status").expect_ok();
    assert!(status.stdout.contains(&heir.named()), "{status}");
    let findings = ctl.doctor("--no-probe");
    let finding = find(&findings, "ipam");
    assert_eq!(finding.verdict, "fail", "{findings:#?}");
    assert!(finding.seen.contains(&heir.named()), "{findings:#?}");
}
