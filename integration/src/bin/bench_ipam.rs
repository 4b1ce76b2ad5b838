//! What `cargo xtask bench ipam` runs: our IPAM plugin against host-local, by itself and without probing,
//! with more and more addresses held.
//!
//! Each has a store of its own, filled with leases that host-local could have written. Runs alternate between
//! the two. A run is timed from the start of the process to its end.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it reports to a person, and fails like a test"
)]

use integration::{Call, GrantFiles, Node, eth0, median_ms};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

const HELD: [u32; 4] = [0, 1_000, 20_000, 60_000];
/// Runs of each kind, after which the median is taken. host-local takes half a second in a crowd.
const ROUNDS: usize = 60;
const THEIR_ROUNDS: usize = 5;
/// Rounds of [`AT_ONCE`] containers.
const BURSTS: usize = 7;
const AT_ONCE: usize = 50;

/// The project's goals for the ratios.
const TO_OWN_EMPTY: f64 = 1.3;
const TO_THEIRS: f64 = 0.4;
const BURST_TO_THEIRS: f64 = 0.3;
/// The goal for what a shared pool adds to an ADD, in milliseconds.
const POOL_COSTS: f64 = 0.1;

const NAMES: [&str; 2] = ["host-local", "vlan-bridge-ipam"];

struct Side {
    node: Node,
    name: &'static str,
    ipam: Value,
}

impl Side {
    /// A store with so many leases, from 10.0.0.2 on.
    fn new(name: &'static str, held: u32) -> Side {
        let ipam = json!({"type": name, "subnet": "10.0.0.0/8"});
        let side = Side { node: Node::new("bench"), name, ipam };
        side.node.hold("bench", Ipv4Addr::new(10, 0, 0, 2), held);
        let store = side.node.data_dir().join("bench");
        fs::write(store.join("last_reserved_ip.0"), format!("10.0.{}.{}", held >> 8, held & 255)).unwrap();
        side
    }

    /// Our plugin on a node of a shared pool, with a slice and as many leased addresses.
    fn shared() -> Side {
        let mut side = Side::new(NAMES[1], 0);
        side.ipam["pool"] = json!({"etcd": {"endpoints": ["http://127.0.0.1:1"]}});
        let files = GrantFiles { node: &side.node, network: "bench", set: 0 };
        files.grant(&["10.0.0.16-10.0.0.31"], &["10.0.1.0-10.0.1.7", "10.0.2.64-10.0.2.71"], &[]);
        files.confirm();
        side
    }

    fn call(&self, verb: &str, id: &str) -> Call<'_> {
        let conf = json!({"type": self.name, "ipam": self.ipam});
        self.node.plugin(&self.node.list("bench", &[conf])).call(verb, &eth0(id))
    }

    /// Runs a verb for so many containers at the same time, and how long that took.
    fn time(&self, verb: &str, count: usize) -> Duration {
        let calls: Vec<Call> = (0..count).map(|i| self.call(verb, &format!("c{i}"))).collect();
        Call::time_all(&calls)
    }
}

/// The two compared plugins in the same conditions: host-local, then ours.
struct Duel {
    sides: [Side; 2],
    /// Rounds of host-local, which is slow.
    their_rounds: usize,
    /// Of each side, ADD and DEL.
    times: [[Vec<Duration>; 2]; 2],
}

impl Duel {
    fn new(held: u32, their_rounds: usize) -> Duel {
        Duel { sides: NAMES.map(|name| Side::new(name, held)), their_rounds, times: Default::default() }
    }

    /// Ours without a shared pool against ours with one.
    fn of_pool() -> Duel {
        let sides = [Side::new(NAMES[1], 0), Side::shared()];
        Duel { sides, their_rounds: ROUNDS, times: Default::default() }
    }

    /// ADD and DEL of so many containers at once. The first round reads a cold store, so it does not count.
    fn round(&mut self, round: usize, count: usize) {
        for (side, times) in self.sides.iter().zip(&mut self.times) {
            if side.name == NAMES[0] && round > self.their_rounds {
                continue;
            }
            for (verb, times) in ["ADD", "DEL"].iter().zip(times) {
                let time = side.time(verb, count);
                times.extend((round > 0).then_some(time));
            }
        }
    }

    /// Milliseconds: host-local and ours, each ADD and DEL.
    fn medians(&self) -> [[f64; 2]; 2] {
        self.times.each_ref().map(|side| side.each_ref().map(|times| median_ms(times)))
    }
}

fn main() {
    // All of them in turn, so that other load of the machine affects all.
    let mut duels = HELD.map(|held| Duel::new(held, if held > 0 { THEIR_ROUNDS } else { ROUNDS }));
    let mut pool = Duel::of_pool();
    for round in 0..=ROUNDS {
        duels.iter_mut().for_each(|duel| duel.round(round, 1));
        pool.round(round, 1);
    }
    let mut burst = Duel::new(0, BURSTS);
    for round in 0..=BURSTS {
        burst.round(round, AT_ONCE);
    }
    println!(
        "\n{:24} {:>11} {:>11} {:>12} {:>6} {:>12} {:>6}",
        "median", "theirs", "ours", "ours/theirs", "goal", "ours/empty", "goal"
    );
    let [_, empty] = duels[0].medians();
    for (duel, held) in duels.iter().zip(HELD) {
        let goal = if held == 0 { format!("{TO_THEIRS:.2}") } else { String::new() };
        for (line, ratio) in lines(duel, &format!("{held} held")).iter().zip(ratios(duel.medians()[1], empty))
        {
            println!("{line} {goal:>6} {ratio:12.2} {TO_OWN_EMPTY:6.2}");
        }
    }
    for line in lines(&burst, &format!("{AT_ONCE} at once")) {
        println!("{line} {BURST_TO_THEIRS:6.2}");
    }
    println!("\n{:24} {:>11} {:>11}", "median, ours", "no pool", "with a pool");
    for (line, goal) in lines(&pool, "0 held").iter().zip([format!("{POOL_COSTS} ms more"), String::new()]) {
        println!("{line} {goal}");
    }
}

/// A line for ADD and one for DEL.
fn lines(duel: &Duel, what: &str) -> [String; 2] {
    let [theirs, ours] = duel.medians();
    let ratio = ratios(ours, theirs);
    [0, 1].map(|i| {
        let name = format!("{}, {what}", ["ADD", "DEL"][i]);
        format!("{name:24} {:8.2} ms {:8.2} ms {:12.3}", theirs[i], ours[i], ratio[i])
    })
}

fn ratios(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] / b[0], a[1] / b[1]]
}
