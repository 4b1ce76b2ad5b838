//! Two hundred callers at the same time, of whom one in ten is killed: no address is ever given twice, and
//! none is lost.

use crate::ipam::Ipam;
use integration::{Call, Outcome, eth0, note, run_killed_at, run_quickly};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long it lasts, and the variable that says how long else, in seconds.
const LASTS: u64 = 20;
const LASTS_VARIABLE: &str = "IPAM_STORM_SECONDS";
const CALLERS: u32 = 200;
const ADDRESSES: u32 = 250;
/// One call in so many is killed at any of so many system calls, if it makes as many.
const CHOSEN: u32 = 7;
const SYSCALLS: u32 = 100;
/// One in so many must have been.
const KILLED: u32 = 10;
/// Others have tests to run.
const NICENESS: i32 = 19;

/// Everything the callers share.
struct Storm<'a> {
    ipam: &'a Ipam,
    end: Instant,
    /// Whose each address is, from the end of its ADD to the beginning of its DEL.
    owners: Mutex<BTreeMap<String, String>>,
    calls: AtomicU32,
    kills: AtomicU32,
}

/// Numbers that are any, the same for the same seed (xorshift).
struct Dice(u32);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % sides
    }
}

impl Storm<'_> {
    /// Who is killed says nothing, and neither does who would have been.
    fn run(&self, call: &Call<'_>, dice: &mut Dice) -> Option<Outcome> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if dice.roll(CHOSEN) > 0 {
            return Some(run_quickly(&mut call.bare_command(), call.input()));
        }
        let outcome = run_killed_at(&mut call.bare_command(), call.input(), dice.roll(SYSCALLS) as usize);
        self.kills.fetch_add(u32::from(outcome.status.signal().is_some()), Ordering::Relaxed);
        None
    }

    /// A container after another, each with an address for as long as it takes to look at it.
    fn call(&self, number: u32, seed: u32) {
        // SAFETY: it changes the niceness of this thread, and of what it starts, and touches no memory.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
        let mut dice = Dice(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)) | 1);
        for round in 0.. {
            let attachment = eth0(&format!("c{number}x{round}"));
            let verb = |verb| self.ipam.plugin().call(verb, &attachment);
            if let Some(outcome) = self.run(&verb("ADD"), &mut dice) {
                // There are more addresses than callers, and each has one at the most.
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
    let mut seed = [0; 4];
    File::open("/dev/urandom").unwrap().read_exact(&mut seed).unwrap();
    let seed = u32::from_ne_bytes(seed);
    note(&format!("storm: seed {seed}"));
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

    // What was given last is held, and beyond that only what killed calls have; the runtime knows of none of
    // those.
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
