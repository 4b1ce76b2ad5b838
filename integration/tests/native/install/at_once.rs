//! `vlan-bridgectl install` and `uninstall` at the same time, as two DaemonSets do. Neither loses the notes
//! of the other.

use integration::{Ctl, Node, Outcome, poll, run};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Less than install's time limit for the lock.
const LIMIT: Duration = Duration::from_secs(45);
const MANIFEST: &str = "/var/lib/vlan-bridge/installed.json";

fn line(name: &str) -> String {
    format!("install --name {name} --master up0 --subnet 172.20.56.0/24 --slice 172.20.56.16/28")
}

/// The number of processes that wait for the lock: in /proc/locks, an arrow marks each.
fn waiting(folder: &File) -> usize {
    let inode = folder.metadata().unwrap().ino();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let waits = |line: &&str| line.contains("-> FLOCK") && line.contains(&format!(":{inode} "));
    locks.lines().filter(waits).count()
}

#[test]
fn installs_at_once_wait_for_each_other_and_lose_nothing() {
    const NAMES: [&str; 3] = ["v1", "v2", "v3"];
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let folder = ctl.path("/var/lib/vlan-bridge");
    fs::create_dir_all(&folder).unwrap();
    let held = File::open(&folder).unwrap();
    held.lock().unwrap();
    let commands = NAMES.map(|name| ctl.command(&line(name)));
    std::thread::scope(|scope| {
        let installs = commands.map(|mut command| scope.spawn(move || run(&mut command)));
        poll(LIMIT, "three installs that wait", || waiting(&held) == NAMES.len());
        assert!(!ctl.has(MANIFEST) && !ctl.has("/opt/cni/bin/vlan-bridge"));
        held.unlock().unwrap();
        let told: [Outcome; 3] = installs.map(|install| install.join().unwrap().expect_ok());
        let new = told.iter().filter(|told| told.stdout.contains("new       /opt/cni/bin/vlan-bridge:"));
        assert_eq!(new.count(), 1, "who comes later sees what the first has put there: {told:?}");
    });
    let noted: Value = serde_json::from_str(&ctl.read(MANIFEST)).unwrap();
    assert_eq!(noted["lists"].as_array().map(Vec::len), Some(NAMES.len()), "{noted:#}");
    ctl.run("uninstall").expect_ok();
    for folder in ["/etc/cni/net.d", "/opt/cni/bin"] {
        let left: Vec<_> = fs::read_dir(ctl.path(folder)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

#[test]
fn an_uninstall_waits_for_an_install() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.run(&line("v1")).expect_ok();
    let held = File::open(ctl.path("/var/lib/vlan-bridge")).unwrap();
    held.lock().unwrap();
    let mut command = ctl.command("uninstall");
    std::thread::scope(|scope| {
        let uninstall = scope.spawn(move || run(&mut command));
        poll(LIMIT, "an uninstall that waits", || waiting(&held) == 1);
        assert!(ctl.has(MANIFEST));
        held.unlock().unwrap();
        uninstall.join().unwrap().expect_ok();
    });
    assert!(!ctl.has(MANIFEST) && !ctl.has("/opt/cni/bin/vlan-bridge"));
}
