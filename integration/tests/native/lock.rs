//! The node's lock: who has to wait for it does, and not for ever.

use crate::attached::Clean;
use integration::{Outcome, Pod, Scratch, Site, Snapshot, poll};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Less than an ADD waits for the lock.
const LIMIT: Duration = Duration::from_secs(15);

/// A node without a bridge, whose lock is its own, unlike that of the other tests' nodes, and taken.
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

    /// An ADD that finds this lock in the lock's place.
    fn add(&self, pod: &Pod) -> Outcome {
        let mount = format!("mount --bind {} /run/vlan-bridge && exec \"$0\"", self.folder.path().display());
        self.clean.plugin().call("ADD", &pod.eth0()).run_under(&["sh", "-c", &mount])
    }

    /// Whether the kernel has somebody wait for the lock: in /proc/locks, an arrow marks who does.
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
