//! Two hundred callers at the same time, and one in ten is killed. No address is assigned twice, and none is
//! lost.

use crate::ipam::Ipam;
use integration::{Call, Dice, Outcome, eth0, note, run_killed_at, run_quickly};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The duration in seconds, and the variable that changes it.
const LASTS: u64 = 20;
const LASTS_VARIABLE: &str = "IPAM_STORM_SECONDS";
const CALLERS: u32 = 200;
const ADDRESSES: u32 = 250;
/// One call in so many is killed, at one of the first so many system calls.
const CHOSEN: u32 = 7;
const SYSCALLS: u32 = 100;
/// At least one in so many must have been killed.
const KILLED: u32 = 10;
/// Runs at low priority, for the other tests.
const NICENESS: i32 = 19;

/// The callers' shared state.
struct Storm<'a> {
    ipam: &'a Ipam,
    end: Instant,
    /// The holder of each address, from the end of its ADD to the beginning of its DEL.
    owners: Mutex<BTreeMap<String, String>>,
    calls: AtomicU32,
    kills: AtomicU32,
}

impl Storm<'_> {
    /// None for a call that was to be killed, because a killed call has no output.
    fn run(&self, call: &Call<'_>, dice: &mut Dice) -> Option<Outcome> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if dice.roll(CHOSEN) > 0 {
            return Some(run_quickly(&mut call.bare_command(), call.input()));
        }
        let outcome = run_killed_at(&mut call.bare_command(), call.input(), dice.roll(SYSCALLS) as usize);
        self.kills.fetch_add(u32::from(outcome.status.signal().is_some()), Ordering::Relaxed);
        None
    }

    /// Adds one container after another, checks its address, and deletes it.
    fn call(&self, number: u32, seed: u32) {
        // SAFETY: it changes the niceness of this thread and its children, and touches no memory.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
        let mut dice = Dice::of(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)));
        for round in 0.. {
            let attachment = eth0(&format!("c{number}x{round}"));
            let verb = |verb| self.ipam.plugin().call(verb, &attachment);
            if let Some(outcome) = self.run(&verb("ADD"), &mut dice) {
                // There are more addresses than callers, and each caller has one at most.
                self.hold(&outcome.expect_ok(), &attachment.id);
            }
            if Instant::now() >= self.end {
                return;
            }
            self.owners.lock().unwrap().retain(|_, owner| *owner != attachment.id);
            while self.run(&verb("DEL"), &mut dice).map(Outcome::expect_ok).is_none() {}
        }
    }

    fn hold(&self, outcome: &Outcome, id: &str) {
        let result = outcome.result();
        let addr = result.address();
        let other = self.owners.lock().unwrap().insert(addr.clone(), id.to_owned());
        assert_eq!(other, None, "{addr} was given to {id} too");
    }
}

#[test]
fn two_hundred_at_once_never_share_an_address_and_lose_none() {
    let ipam =
        Ipam::new(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.4", "rangeEnd": "10.1.0.253"}));
    let seconds = std::env::var(LASTS_VARIABLE).map_or(LASTS, |text| text.parse().expect("seconds"));
    let seed = Dice::seed("storm");
    let storm = Storm {
        ipam: &ipam,
        end: Instant::now() + Duration::from_secs(seconds),
        owners: Mutex::default(),
        calls: AtomicU32::new(0),
        kills: AtomicU32::new(0),
    };
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let storm = &storm;
            scope.spawn(move || storm.call(number, seed));
        }
    });
    let (calls, kills) = (storm.calls.into_inner(), storm.kills.into_inner());
    note(&format!("{calls} calls in {seconds} s, {kills} of them killed"));
    assert!(kills > calls / KILLED, "{kills} of {calls} calls were killed");

    // The last assigned addresses are held. Otherwise only killed calls hold addresses, which the runtime
    // does not know.
    let owners = storm.owners.into_inner().unwrap();
    let held = ipam.leases();
    for (addr, owner) in &owners {
        assert_eq!(held.get(addr), Some(&format!("{owner}\r\neth0")), "{addr}");
    }
    let kept: Vec<Value> = owners.values().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
    ipam.plugin().with("cni.dev/valid-attachments", kept.into()).gc().expect_ok();
    assert_eq!(ipam.leases().into_keys().collect::<Vec<_>>(), owners.keys().cloned().collect::<Vec<_>>());
    assert_eq!(ipam.records().len(), owners.len());

    let mut all: BTreeSet<String> = owners.into_keys().collect();
    for i in all.len()..ADDRESSES as usize {
        let call = ipam.plugin().call("ADD", &eth0(&format!("rest{i}")));
        let addr = run_quickly(&mut call.bare_command(), call.input()).result().address();
        assert!(all.insert(addr.clone()), "{addr} was given twice");
    }
    assert_eq!(ipam.plugin().add(&eth0("more")).error_code(), 11);
}
