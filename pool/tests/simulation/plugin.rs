//! ADD and DEL on a node, as the IPAM plugin does them.

use std::net::IpAddr;
use std::time::Duration;

use vlan_bridge_pool::grants::Verdict;
use vlan_bridge_pool::history::What;

use crate::check;
use crate::happening::{Happening, Step};
use crate::world::{Pod, World};

/// How long an ADD waits for an address.
const WAIT: Duration = Duration::from_secs(5);
/// How long a probe takes.
const PROBE: Duration = Duration::from_millis(99);
/// How long an address is left alone after somebody answered for it.
const QUARANTINE: Duration = Duration::from_secs(600);
/// After this the runtime tries an ADD again that was refused.
const AGAIN: Duration = Duration::from_secs(10);

/// A pod begins on a node's network.
pub(crate) fn begin(world: &mut World, node: usize, network: usize) {
    if !world.machines[node].on {
        return;
    }
    world.last_pod += 1;
    world.counts.adds += 1;
    let asked_at = world.now;
    let pool = &world.setup.pools[world.setup.pool_of(network)];
    let named = world.setup.strict && world.drains.is_none() && world.random.below(12) == 0;
    let any = world.random.below(pool.len() as usize);
    let wants = named.then(|| pool.iter().nth(any)).flatten();
    world.counts.named += u64::from(wants.is_some());
    let pod = Pod { node, network, wants, chosen: None, silent: false, asked_at, was_dry: false };
    world.pods.insert(world.last_pod, pod);
    let number = world.last_pod;
    world.after(Duration::ZERO, Happening::Pod(number, Step::Look));
}

pub(crate) fn step(world: &mut World, number: u64, step: Step) {
    // A reboot ends all pods.
    let Some(pod) = world.pods.get(&number).cloned() else { return };
    match step {
        Step::Look if pod.chosen.is_none() || pod.silent => look(world, number, &pod),
        Step::Look => {}
        Step::GivesUp => gives_up(world, number, &pod),
        Step::Probed => probed(world, number, pod),
        Step::Links => links(world, number, &pod),
        Step::Runs => runs(world, number, &pod),
        Step::Ends => ends(world, number, &pod),
    }
}

/// Under the lock: chooses an address.
fn look(world: &mut World, number: u64, pod: &Pod) {
    let now = world.now;
    let machine = &mut world.machines[pod.node];
    let (moment, uptime) = (machine.moment(now), machine.uptime(now));
    let local = &mut machine.networks[pod.network];
    if local.lock == Some(number) || local.leases.values().any(|(of, _)| *of == number) {
        return;
    }
    if local.lock.is_some() {
        return local.behind.push(Happening::Pod(number, Step::Look));
    }
    if local.generation != local.disk.generation && number.is_multiple_of(2) {
        local.make_queue(now);
    }
    let may = |addr: IpAddr| local.disk.may_give(addr, local.confirmation.as_ref(), &moment);
    let given = |addr: &IpAddr| {
        let wanted = pod.wants.is_none_or(|wanted| wanted == *addr);
        wanted && matches!(may(*addr), Verdict::Give | Verdict::GiveIfSilent)
    };
    let mut queue: Vec<(Duration, IpAddr)> =
        local.offered.iter().map(|(addr, since)| (*since, *addr)).collect();
    queue.sort();
    let is_clear = |addr: &IpAddr| !local.is_quarantined(*addr, now);
    let probed = pod.chosen.filter(|_| pod.silent).map(|(addr, _)| addr);
    let probed = probed.filter(|addr| local.offered.contains_key(addr) && given(addr) && is_clear(addr));
    let found =
        probed.or_else(|| queue.into_iter().map(|(_, addr)| addr).find(|addr| given(addr) && is_clear(addr)));
    let Some(addr) = found else { return dry(world, number, pod) };
    let must_probe = may(addr) == Verdict::GiveIfSilent || world.setup.probes;
    if must_probe && probed.is_none() {
        let pod = Pod { chosen: Some((addr, uptime)), silent: false, ..pod.clone() };
        world.pods.insert(number, pod);
        return world.after(PROBE, Happening::Pod(number, Step::Probed));
    }
    // A probe is part of the time that an ADD may take.
    let since = pod.chosen.filter(|_| probed.is_some()).map_or(uptime, |(_, since)| since);
    local.lock = Some(number);
    local.stops_waiting(number);
    world.pods.insert(number, Pod { chosen: Some((addr, since)), ..pod.clone() });
    check::chosen(world, pod.node, pod.network, addr);
    goes_on(world, number, Step::Links, Duration::from_micros(50));
}

/// The ADD goes on after a pause, or is stopped for some time, or killed.
fn goes_on(world: &mut World, number: u64, step: Step, pause: Duration) {
    let (stopped, killed) = (world.setup.adds_stopped, world.setup.adds_killed);
    if world.bad_luck(killed) {
        let pod = world.pods[&number].clone();
        world.log(|| format!("n{} ADD {number} is killed", pod.node));
        let local = &mut world.machines[pod.node].networks[pod.network];
        local.stops_waiting(number);
        if local.lock == Some(number) {
            world.unlock(pod.node, pod.network);
        }
        // The runtime calls DEL.
        let pause = world.random.seconds(1, 60);
        return world.after(pause, Happening::Pod(number, Step::Ends));
    }
    if world.bad_luck(stopped) {
        let margin = world.setup.policy.margin;
        let pause = match world.random.below(3) {
            0 => world.random.time(Duration::ZERO, margin),
            1 => world.random.time(margin * 9 / 10, margin * 11 / 10),
            _ => world.random.time(margin, margin * 4),
        };
        return world.after(pause, Happening::Pod(number, step));
    }
    world.after(pause, Happening::Pod(number, step));
}

/// Nothing is there: the agent is asked.
fn dry(world: &mut World, number: u64, pod: &Pod) {
    let local = &mut world.machines[pod.node].networks[pod.network];
    let first = local.waiting.insert(number);
    local.requested.extend(pod.wants.map(|wanted| (number, wanted)));
    if first && !pod.was_dry {
        world.counts.dry += 1;
    }
    world.pods.insert(number, Pod { chosen: None, silent: false, was_dry: true, ..pod.clone() });
    if first {
        world.after(WAIT, Happening::Pod(number, Step::GivesUp));
        poke(world, pod);
    }
}

fn poke(world: &mut World, pod: &Pod) {
    world.after(Duration::from_micros(200), Happening::Report(pod.node, pod.network, None));
}

fn gives_up(world: &mut World, number: u64, pod: &Pod) {
    let local = &mut world.machines[pod.node].networks[pod.network];
    if !local.stops_waiting(number) {
        return;
    }
    world.counts.refused += 1;
    let pod = &Pod { wants: pod.wants.filter(|_| world.random.below(2) == 0), ..pod.clone() };
    poke(world, pod);
    world.pods.remove(&number);
    if world.drains.is_some() || world.random.below(2) == 0 {
        world.last_pod += 1;
        let number = world.last_pod;
        world.pods.insert(number, Pod { chosen: None, silent: false, ..pod.clone() });
        world.after(AGAIN, Happening::Pod(number, Step::Look));
    }
}

fn probed(world: &mut World, number: u64, pod: Pod) {
    let Some((addr, _)) = pod.chosen else { return };
    let pool = world.setup.pool_of(pod.network);
    let until = world.now + QUARANTINE;
    if world.running.contains_key(&(pool, addr)) {
        world.counts.answered += 1;
        world.log(|| format!("n{} ADD {number}: somebody answers for {addr}", pod.node));
        world.machines[pod.node].networks[pod.network].quarantined.insert(addr, until);
        world.pods.insert(number, Pod { chosen: None, ..pod });
    } else {
        world.pods.insert(number, Pod { silent: true, ..pod });
    }
    goes_on(world, number, Step::Look, Duration::ZERO);
}

/// Whether an ADD has taken too long since it chose its address.
fn is_late(world: &World, pod: &Pod) -> bool {
    let uptime = world.machines[pod.node].uptime(world.now);
    pod.chosen.is_none_or(|(_, since)| uptime - since >= world.setup.policy.margin)
}

/// Writes the lease and gives the lock back.
fn links(world: &mut World, number: u64, pod: &Pod) {
    let late = is_late(world, pod);
    let local = &world.machines[pod.node].networks[pod.network];
    if local.lock != Some(number) {
        return;
    }
    world.unlock(pod.node, pod.network);
    match pod.chosen.filter(|_| !late) {
        Some((addr, _)) => {
            let local = &mut world.machines[pod.node].networks[pod.network];
            local.offered.remove(&addr);
            local.leases.insert(addr, (number, false));
            let pause = world.random.millis(1, 500);
            goes_on(world, number, Step::Runs, pause);
        }
        None => {
            world.pods.insert(number, Pod { chosen: None, silent: false, ..pod.clone() });
            world.after(Duration::ZERO, Happening::Pod(number, Step::Look));
        }
    }
}

/// The ADD ends: the pod runs, and answers for its address.
fn runs(world: &mut World, number: u64, pod: &Pod) {
    let Some((addr, _)) = pod.chosen else { return };
    if is_late(world, pod) {
        give_back(world, pod, addr);
        world.pods.insert(number, Pod { chosen: None, silent: false, ..pod.clone() });
        return world.after(Duration::ZERO, Happening::Pod(number, Step::Look));
    }
    let now = world.now;
    let pool = world.setup.pool_of(pod.network);
    world.log(|| format!("n{} pod {number} has {addr}", pod.node));
    if let Some(other) = world.running.insert((pool, addr), number) {
        let who = world.pods.get(&other).map_or(usize::MAX, |other| other.node);
        world.fail(format!("{addr} has two pods: {other} on n{who}, {number} on n{}", pod.node));
    }
    let named = world.named(pod.node, number);
    world.record(pool, What::AddBegin(named.clone()));
    world.record(pool, What::AddOk(named, addr));
    world.counts.named_given += u64::from(pod.wants.is_some());
    let low = world.setup.marks.low;
    let local = &mut world.machines[pod.node].networks[pod.network];
    local.leases.insert(addr, (number, true));
    let proved = local.disk.unproven.contains(addr);
    if local.offered.len() <= low as usize || proved {
        poke(world, pod);
    }
    if pod.was_dry {
        world.counts.dry_times.push(now - pod.asked_at);
    }
    world.counts.drained += usize::from(world.drains.is_some());
    match world.drains {
        Some((0, _)) | None => {
            let lives = world.setup.pod_lives;
            let lives = world.random.time(lives / 20, lives * 2);
            if world.setup.strict && !world.quiet {
                world.after(lives, Happening::Pod(number, Step::Ends));
            }
        }
        Some((left, of)) => {
            world.drains = Some((left - 1, of));
            begin(world, pod.node, pod.network);
        }
    }
}

/// DEL: the address is free on its node, and offered if it still is the node's.
fn ends(world: &mut World, number: u64, pod: &Pod) {
    world.pods.remove(&number);
    let local = &mut world.machines[pod.node].networks[pod.network];
    local.stops_waiting(number);
    if local.lock == Some(number) {
        world.unlock(pod.node, pod.network);
    }
    let Some((addr, _)) = pod.chosen else { return };
    let (pool, named) = (world.setup.pool_of(pod.network), world.named(pod.node, number));
    world.record(pool, What::DelBegin(named.clone()));
    world.record(pool, What::DelOk(named));
    let local = &mut world.machines[pod.node].networks[pod.network];
    if local.leases.get(&addr).is_some_and(|(of, _)| *of == number) {
        world.log(|| format!("n{} DEL {number} of {addr}", pod.node));
        give_back(world, pod, addr);
    }
    if world.running.get(&(pool, addr)) == Some(&number) {
        world.running.remove(&(pool, addr));
    }
}

fn give_back(world: &mut World, pod: &Pod, addr: IpAddr) {
    let now = world.now;
    let local = &mut world.machines[pod.node].networks[pod.network];
    local.leases.remove(&addr);
    local.offer(addr, now);
    for pod in local.waiting.clone() {
        world.after(Duration::from_millis(1), Happening::Pod(pod, Step::Look));
    }
}
