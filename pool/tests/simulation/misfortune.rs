//! What goes wrong.

use std::time::Duration;

use vlan_bridge_pool::history::What;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::register::State;
use vlan_bridge_pool::runs::Runs;

use crate::happening::Happening;
use crate::store::Key;
use crate::world::World;
use crate::{driver, run};

/// Something goes wrong.
pub(crate) fn strikes(world: &mut World) {
    if world.quiet {
        return;
    }
    let mean = world.setup.between_misfortunes;
    let pause = world.random.time(mean / 4, mean * 2);
    world.after(pause, Happening::Misfortune);
    let node = world.random.below(world.machines.len());
    match world.random.below(19) {
        0..5 => kill(world, node),
        5 | 6 => {
            let off = world.random.seconds(5, 120);
            reboot(world, node, off);
        }
        7 => {
            let off = world.random.seconds(300, 7_200);
            reboot(world, node, off);
        }
        8 => {
            if world.machines.iter().filter(|machine| machine.on).count() > 2 && world.random.below(2) == 0 {
                world.log(|| format!("n{node} is lost for good"));
                world.machines[node].for_good = true;
                turn_off(world, node);
            }
        }
        9 => {
            let (short, long) = (world.random.seconds(1, 120), world.random.seconds(120, 6_000));
            let pause = if world.random.below(2) == 0 { short } else { long };
            let machine = &mut world.machines[node];
            machine.stopped_until = machine.stopped_until.max(world.now + pause);
            let until = machine.stopped_until;
            world.at(until, Happening::Resumes(node));
            world.log(|| format!("n{node} agent is stopped for {pause:?}"));
            if world.random.below(3) == 0 {
                mark(world, node);
            }
        }
        10 => {
            let pause = world.random.seconds(5, 600);
            world.store.away_until = world.now + pause;
            world.log(|| format!("the store is away for {pause:?}"));
        }
        11 | 16 => {
            let pause = world.random.seconds(5, 7_200);
            world.machines[node].cut_until = world.now + pause;
            world.log(|| format!("n{node} is cut from the store for {pause:?}"));
            // A node that is away is soon thought lost.
            if world.random.below(3) > 0 {
                mark(world, node);
            }
        }
        12 => {
            let step = world.random.one_of(&[-100_000, -1_000, -10, 10, 1_000, 100_000]);
            world.machines[node].steps += step;
            world.log(|| format!("n{node} its clock steps by {step} s"));
        }
        13 => {
            world.machines[node].full_until = world.now + world.random.seconds(1, 120);
            world.log(|| format!("n{node} its disk is full"));
        }
        18 => {
            let share = run::slice(&world.setup, node, 0);
            let most = world.random.below(share.len() as usize + 1);
            set_slice(world, node, share.iter().take(most).collect());
        }
        17 => {
            let blocks: Vec<Key> = world.store.free.iter().copied().collect();
            // What was unreadable can be read again.
            world.store.unreadable.clear();
            if let Some(block) = (!blocks.is_empty()).then(|| world.random.one_of(&blocks)) {
                world.log(|| format!("nobody can read {block:?}"));
                world.store.unreadable.insert(block);
            }
        }
        _ => mark(world, node),
    }
}

/// Another slice is configured, which is a part of the node's share.
fn set_slice(world: &mut World, node: usize, slice: Runs) {
    let machine = &mut world.machines[node];
    let local = &mut machine.networks[0];
    if local.slice != slice {
        local.slice = slice.clone();
        machine.agent.iter_mut().for_each(|agent| agent.set_slice(&local.name, slice.clone()));
        world.log(|| format!("n{node} has the slice {slice:?}"));
    }
}

fn kill(world: &mut World, node: usize) {
    if world.machines[node].agent.is_none() {
        return;
    }
    world.log(|| format!("n{node} agent is killed"));
    driver::stop(world, node);
    let pause = if world.random.below(8) == 0 {
        world.random.seconds(10, 600)
    } else {
        world.random.millis(50, 5_000)
    };
    world.after(pause, Happening::Start(world.here(node)));
}

fn turn_off(world: &mut World, node: usize) {
    driver::stop(world, node);
    world.machines[node].on = false;
    let name = world.label(node);
    (0..world.histories.len()).for_each(|pool| world.record(pool, What::Off(name.clone())));
    let ended: Vec<u64> =
        world.pods.iter().filter(|(_, pod)| pod.node == node).map(|(number, _)| *number).collect();
    ended.iter().for_each(|number| {
        world.pods.remove(number);
    });
    world.running.retain(|_, pod| !ended.contains(pod));
    // A power cut, or a shutdown that syncs.
    let cut = world.random.below(2) == 0;
    let machine = &mut world.machines[node];
    if let Some(synced) = machine.synced.take().filter(|_| cut) {
        machine.identity = synced;
    }
    for local in &mut machine.networks {
        if let Some(synced) = local.synced.take().filter(|_| cut) {
            local.disk = synced;
        }
        local.confirmation = None;
        local.leases.clear();
        local.waiting.clear();
        local.requested.clear();
        local.behind.clear();
        local.lock = None;
    }
}

fn reboot(world: &mut World, node: usize, off: Duration) {
    if !world.machines[node].on {
        return;
    }
    world.log(|| format!("n{node} is off for {off:?}"));
    turn_off(world, node);
    world.after(off, Happening::Boot(node));
}

pub(crate) fn boots(world: &mut World, node: usize) {
    let machine = &mut world.machines[node];
    if machine.on || machine.for_good {
        return;
    }
    machine.on = true;
    machine.boot += 1;
    machine.booted_at = world.now;
    machine.steps += [0, 0, -50, 50][world.random.below(4)];
    machine.networks.iter_mut().for_each(|local| local.make_queue(world.now));
    let name = world.label(node);
    (0..world.histories.len()).for_each(|pool| world.record(pool, What::Boot(name.clone())));
    let pause = world.random.millis(1, 10_000);
    world.after(pause, Happening::Start(world.here(node)));
}

/// A node is marked as lost. Where addresses are given without end, an operator does it, and only to a node
/// that is off.
fn mark(world: &mut World, node: usize) {
    let machine = &world.machines[node];
    if world.setup.policy.give_for.is_none() && machine.on {
        return;
    }
    let by = world.machines[world.random.below(world.machines.len())].name.clone();
    let state = if machine.for_good { State::Gone { by } } else { State::Lost { by } };
    put_mark(world, node, state);
}

fn put_mark(world: &mut World, node: usize, state: State) {
    let name: Name = world.machines[node].name.clone();
    if let (_, Some(register)) = world.store.register(&name)
        && let Some(marked) = register.marked(state)
    {
        world.log(|| format!("n{node} is marked {:?}", marked.state));
        world.store.put_register(&name, marked);
    }
}

/// Nothing is wrong any more: the store answers, and all nodes are there but those that are lost for good.
pub(crate) fn end(world: &mut World) {
    world.quiet = true;
    world.store.away_until = Duration::ZERO;
    world.store.unreadable.clear();
    let now = world.now;
    for node in 0..world.machines.len() {
        let share = run::slice(&world.setup, node, 0);
        set_slice(world, node, share);
        world.after(Duration::ZERO, Happening::Resumes(node));
        let machine = &mut world.machines[node];
        (machine.cut_until, machine.full_until) = (Duration::ZERO, Duration::ZERO);
        machine.stopped_until = machine.stopped_until.min(now);
        if machine.for_good {
            let by = machine.name.clone();
            put_mark(world, node, State::Gone { by });
        } else if !machine.on {
            boots(world, node);
        } else if machine.agent.is_none() {
            world.after(Duration::ZERO, Happening::Start(world.here(node)));
        }
    }
}
