//! The clock is set while the address store is in use. The clock belongs to the whole machine, so only a
//! guest's clock is set.

use integration::{Node, Outcome, Plugin, eth0, not_tried};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The variable that the boot of the guest sets.
const IN_GUEST: &str = "VLAN_BRIDGE_GUEST";

/// In seconds since 1970.
const SOME_TIME: i64 = 1_800_000_000;

/// The clock. Dropping it restores the time.
struct Clock {
    began: (SystemTime, Instant),
}

impl Clock {
    fn step(seconds: i64) {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        // The kernel refuses a time before the boot.
        set((now + seconds).max(3600));
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let now = self.began.0 + self.began.1.elapsed();
        set(i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap());
    }
}

fn set(seconds: i64) {
    let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    // SAFETY: the kernel reads the structure and does not keep a pointer to it.
    assert_eq!(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }, 0, "{seconds}");
}

/// The addresses, and their attachments.
#[derive(Default)]
struct Given(BTreeMap<String, String>);

impl Given {
    #[track_caller]
    fn add(&mut self, plugin: &Plugin<'_>, id: &str) {
        let result = plugin.add(&eth0(id)).result();
        let addr = result.cidr();
        assert_eq!(self.0.insert(addr.clone(), id.to_owned()), None, "{addr} was given to {id} too");
    }

    #[track_caller]
    fn del(&mut self, plugin: &Plugin<'_>, id: &str) {
        plugin.del(&eth0(id)).expect_ok();
        self.0.retain(|_, holder| holder != id);
    }
}

fn plugin<'a>(node: &'a Node, name: &str) -> Plugin<'a> {
    let ipam = json!({"type": name, "subnet": "10.1.0.0/24"});
    node.plugin(&node.list("clock", &[json!({"type": name, "ipam": ipam})]))
}

fn by_hand(node: &Node, words: &[&str]) -> Outcome {
    let mut command = node.command(integration::plugin("vlan-bridge-ipam"));
    command.args(words).arg("--data-dir").arg(node.data_dir()).env_remove("CNI_COMMAND");
    integration::run(&mut command)
}

#[test]
fn a_clock_that_is_set_makes_no_difference() {
    if std::env::var_os(IN_GUEST).is_none() {
        return not_tried("the clock is the machine's own and was not set");
    }
    let clock = Clock { began: (SystemTime::now(), Instant::now()) };
    let node = Node::new("clock");
    let (ours, theirs) = (plugin(&node, "vlan-bridge-ipam"), plugin(&node, "host-local"));
    let mut given = Given::default();
    // A guest begins in 1970.
    set(SOME_TIME);
    // By days, by the age of the mark on the directory, and to the time of a machine without a clock.
    for (round, seconds) in [86_400, -2 * 86_400, -10, -SOME_TIME].into_iter().enumerate() {
        let id = |role: &str| format!("{role}{round}");
        given.add(&ours, &id("ours"));
        given.add(&ours, &id("back"));
        given.add(&theirs, &id("seen"));
        ours.check(&eth0(&id("seen")), &json!({})).expect_ok();
        given.add(&theirs, &id("unseen"));
        given.del(&ours, &id("back"));
        Clock::step(seconds);
        // A change by the other plugin just after the step is noticed,
        given.add(&theirs, &id("after"));
        given.add(&ours, &id("next"));
        for role in ["ours", "seen", "unseen", "after", "next"] {
            ours.check(&eth0(&id(role)), &json!({})).expect_ok();
        }
        // no attachment loses an address because of its age,
        let usage = by_hand(&node, &["usage", "-o", "json"]).expect_ok().json();
        assert_eq!(usage[0]["used"], given.0.len(), "after {seconds} s: {usage}");
        // and a released address has its usual cooldown.
        assert!(usage[0]["cooling"].as_u64() >= Some(1), "after {seconds} s: {usage}");
        assert_eq!(node.leases("clock").len(), given.0.len());
    }
    for id in given.0.values() {
        ours.del(&eth0(id)).expect_ok();
    }
    assert!(node.leases("clock").is_empty());
    drop(clock);
}
