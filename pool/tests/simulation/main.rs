//! A simulation of nodes that share address pools: the crate's agents, a store, a VLAN, and whatever goes
//! wrong, in virtual time. A seed determines all of it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is all of a test")]

mod check;
mod documents;
mod driver;
mod happening;
mod large;
mod machine;
mod misfortune;
mod plugin;
mod random;
mod requests;
mod run;
mod setup;
mod store;
mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use world::Counts;

/// Repeats one seed, and prints what happens.
const SEED: &str = "VLAN_BRIDGE_SIM_SEED";
/// How many seeds to run, however long it takes.
const SEEDS: &str = "VLAN_BRIDGE_SIM_SEEDS";
/// How many nodes the large world has.
const NODES: &str = "VLAN_BRIDGE_SIM_NODES";
/// How many seeds are run if there is time for them, and for how long.
const USUAL: u64 = 10_000;
const BOX: Duration = Duration::from_secs(40);
/// Fewer say little.
const LEAST: u64 = 500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
}

#[test]
fn no_seed_gives_an_address_to_two_pods_or_loses_one() {
    if let Some(seed) = number(SEED) {
        let failure = run::small(seed, true).failure;
        assert_eq!(failure, None, "seed {seed}");
        return;
    }
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let asked = number(SEEDS);
    let begun = Instant::now();
    let (mut seeds, mut sum) = (0, Counts::default());
    println!("the first seed is {first}");
    while seeds < asked.unwrap_or(USUAL) {
        if asked.is_none() && seeds >= LEAST && begun.elapsed() > BOX {
            break;
        }
        let seed = first.wrapping_add(seeds);
        let world = run::small(seed, false);
        if let Some(failure) = world.failure {
            panic!("{SEED}={seed} (the {seeds}th) {failure}");
        }
        sum.add(&world.counts);
        seeds += 1;
    }
    let Counts { events, adds, named, named_given, answered, fenced, restored, namesakes, .. } = sum;
    println!(
        "{seeds} seeds, {events} events, {adds} ADDs, {named_given} of {named} addresses given by name, \
         {answered} probes answered, {fenced} times fenced, {restored} times restored, \
         {namesakes} times refused, {:?}",
        begun.elapsed()
    );
    assert!(seeds > 0 && adds > seeds && named_given > 0, "nothing was tried");
}

#[test]
fn many_nodes_share_many_addresses() {
    // Ten thousand nodes take half a minute.
    large::run(number(NODES).unwrap_or(200) as usize);
}
