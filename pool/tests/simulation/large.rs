//! One large world, and what it costs.

use std::time::{Duration, Instant};

use crate::happening::{Happening, Step};
use crate::random::Random;
use crate::run;
use crate::setup::Setup;
use crate::world::{Counts, World};

/// The addresses of the pool for each node.
const SHARE: usize = 100;

/// Runs it and prints its figures. A tenth of the nodes have bursts of pods.
pub(crate) fn run(nodes: usize) {
    let (addresses, busy) = (nodes * SHARE, nodes / 10);
    let begun = Instant::now();
    let mut world = run::world(Setup::large(nodes, addresses), Random::new(1), Duration::from_secs(60));
    phase(&mut world, "start, spread over a minute", 120, |_| {});
    phase(&mut world, "an hour without pods", 3_600, |_| {});
    phase(&mut world, "110 pods on each of a tenth of the nodes, 20 a second", 60, |world| {
        burst(world, busy, 110, 50)
    });
    phase(&mut world, "churn: a third of the pods in ten minutes", 600, churn);
    phase(&mut world, "140 more each, 2 a second: the pool is empty, idle home is lent", 300, |world| {
        burst(world, busy, 140, 500);
    });
    let blocks = world.store.blocks.len();
    println!(
        "{nodes} nodes, {addresses} addresses, {blocks} blocks, {} pods, {} events, {:?}, at most {} MB",
        world.running.len(),
        world.counts.events,
        begun.elapsed(),
        memory() / 1000
    );
    assert_eq!(world.failure, None);
    assert!(world.running.len() > busy * 240, "only {} pods", world.running.len());
}

/// Lets something happen for so many seconds.
fn phase(world: &mut World, what: &str, seconds: u64, begin: impl FnOnce(&mut World)) {
    world.counts = Counts { events: world.counts.events, ..Counts::default() };
    let requests = world.store.requests;
    begin(world);
    let end = world.now + Duration::from_secs(seconds);
    run::until(world, end);
    let each = (world.store.requests - requests) as f64 / world.machines.len() as f64;
    println!("{what}: {each:.2} requests a node, {:.4} a second", each / seconds as f64);
    let Counts { adds, dry, refused, dry_times, .. } = &mut world.counts;
    if *adds > 0 {
        dry_times.sort();
        let at = |share: usize| dry_times.get(dry_times.len() * share / 100);
        let share = *dry as f64 * 100.0 / *adds as f64;
        println!(
            "  {adds} ADDs, {share:.2} % dry, {refused} refused, dry: p50 {:?}, p99 {:?}",
            at(50),
            at(99)
        );
    }
}

/// So many pods on each busy node, one after so many milliseconds.
fn burst(world: &mut World, busy: usize, pods: u64, every: u64) {
    for node in 0..busy {
        for pod in 0..pods {
            let pause = world.random.millis(pod * every, (pod + 1) * every);
            world.after(pause, Happening::Begin(node, 0));
        }
    }
}

fn churn(world: &mut World) {
    let pods: Vec<(u64, usize)> = world.pods.iter().map(|(number, pod)| (*number, pod.node)).collect();
    for (pod, node) in pods.into_iter().step_by(3) {
        let pause = world.random.seconds(0, 500);
        world.after(pause, Happening::Pod(pod, Step::Ends));
        let more = world.random.millis(10, 2_000);
        world.after(pause + more, Happening::Begin(node, 0));
    }
}

/// The most memory that this process had, in KB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
