//! The lock of the node. An ADD waits for it within a time limit. CHECK and STATUS do not take it.

use crate::attached::Clean;
use integration::{Call, Outcome, Pod, Scratch, Site, Snapshot, poll};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Less than an ADD's time limit for the lock.
const LIMIT: Duration = Duration::from_secs(15);

/// A node without a bridge. Its lock is held, and is not the lock of other tests' nodes.
struct Locked {
    clean: Clean,
    folder: Scratch,
    held: File,
}

impl Locked {
    fn new() -> Locked {
        let (clean, folder) = (Clean::new(), Scratch::new("lock"));
        clean.make_bare();
        let held = File::create(folder.path().join("node.lock")).unwrap();
        held.lock().unwrap();
        Locked { clean, folder, held }
    }

    /// An ADD that uses this file as its lock.
    fn add(&self, pod: &Pod) -> Outcome {
        let mount = format!("mount --bind {} /run/vlan-bridge && exec \"$0\"", self.folder.path().display());
        self.clean.plugin().call("ADD", &pod.eth0()).run_under(&["sh", "-c", &mount])
    }

    /// Whether a process waits for the lock: in /proc/locks, an arrow marks it.
    fn somebody_waits(&self) -> bool {
        let inode = fs::metadata(self.folder.path().join("node.lock")).unwrap().ino();
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&format!(":{inode} ")))
    }
}

#[test]
fn an_add_that_needs_the_lock_waits_for_it() {
    let (locked, pod) = (Locked::new(), Pod::new());
    std::thread::scope(|scope| {
        let add = scope.spawn(|| locked.add(&pod));
        poll(LIMIT, "an ADD that waits", || locked.somebody_waits());
        assert!(!add.is_finished() && !locked.clean.site.node.has_link("br136"));
        locked.held.unlock().unwrap();
        add.join().unwrap().expect_ok();
    });
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn an_add_does_not_wait_for_ever() {
    let (locked, pod) = (Locked::new(), Pod::new());
    let before = [Snapshot::of(&locked.clean.site.node), Snapshot::of(&pod)];
    let outcome = locked.add(&pod);
    assert_eq!(outcome.error_code(), 11, "{outcome}");
    assert!(outcome.error_text().contains("/run/vlan-bridge/node.lock"), "{outcome}");
    before[0].assert_unchanged(&locked.clean.site.node);
    before[1].assert_unchanged(&pod);
}

/// Runs a verb with its own folder for the node's lock. `holder` runs the plugin.
fn run_with_own_lock(call: &Call, holder: &str) -> Outcome {
    let script = format!(
        "mkdir -p /run/vlan-bridge && mount -t tmpfs none /run/vlan-bridge || exit 99\n\
         {holder} timeout -s KILL 5 \"$0\"; code=$?\nls -A /run/vlan-bridge >&2\nexit $code"
    );
    call.run_under(&["sh", "-c", &script])
}

/// Runs a verb while another process holds the lock, and then without a lock file.
#[track_caller]
fn needs_no_lock(call: &Call, judge: impl Fn(&Outcome)) {
    judge(&run_with_own_lock(call, "flock /run/vlan-bridge/node.lock"));
    let outcome = run_with_own_lock(call, "");
    judge(&outcome);
    assert!(!outcome.stderr.contains("node.lock"), "it made one: {outcome}");
}

#[test]
fn status_and_check_take_no_lock_and_make_none() {
    let site = Site::new();
    let (plugin, pod) = (site.node.plugin(&site.list()), Pod::new());
    let status = plugin.call_without_attachment("STATUS");
    let passes = |outcome: &Outcome| assert!(outcome.ok(), "{outcome}");
    let fails_with = |code| move |outcome: &Outcome| assert_eq!(outcome.error_code(), code, "{outcome}");
    // The control: an ADD needs the lock, and waits.
    let waiting = run_with_own_lock(&plugin.call("ADD", &pod.eth0()), "flock /run/vlan-bridge/node.lock");
    assert!(!waiting.ok() && waiting.stdout.is_empty(), "{waiting}");

    needs_no_lock(&status, passes);
    let result = plugin.add(&pod.eth0()).result();
    let check = plugin.clone().with("prevResult", json!(result)).call("CHECK", &pod.eth0());
    needs_no_lock(&status, passes);
    needs_no_lock(&check, passes);
    site.node.ip("link set nic0 nomaster");
    needs_no_lock(&status, passes);
    needs_no_lock(&check, fails_with(101));
    site.node.ip("addr add 10.44.0.5/24 dev nic0");
    needs_no_lock(&status, fails_with(50));
    site.node.ip("link del br136\nlink add br136 type veth peer name other");
    needs_no_lock(&status, fails_with(50));
    needs_no_lock(&check, fails_with(101));
    site.node.ip("link del nic0");
    needs_no_lock(&status, fails_with(51));
}
