//! Drives the agents: what they ask for is done, on the node or in the store, and takes its time.

use std::time::Duration;

use vlan_bridge_pool::agent::{Action, Agent, Event};
use vlan_bridge_pool::membership::{self, Membership};
use vlan_bridge_pool::network::{Network, Recall};
use vlan_bridge_pool::plan::Me;
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::stock::{self, Stock};

use crate::happening::{Agents, Ask, At, Happening, Step};
use crate::requests::{ask, recalls};
use crate::world::World;
use crate::{check, documents};

/// The agent of a node starts.
pub(crate) fn start(world: &mut World, at: At) {
    let now = world.now;
    if !world.unnoticed.is_empty() {
        return world.after(Duration::from_secs(1), Happening::Start(at));
    }
    let seed = world.random.number();
    let machine = &mut world.machines[at.node];
    if !machine.on || machine.agent.is_some() || machine.life != at.life {
        return;
    }
    let moment = machine.moment(now);
    let give_for = world.setup.policy.give_for;
    let membership = Membership::new(moment.boot, machine.identity.clone(), give_for);
    let Identity { epoch, since, .. } = machine.identity.clone();
    let mut stocks = Vec::new();
    for local in &mut machine.networks {
        local.make_queue(now);
        let me = Me { node: machine.name.clone(), network: local.name.clone(), epoch, since };
        let stock = Stock::new(me, local.slice.clone(), local.disk.clone());
        stocks.push((local.name.clone(), stock));
    }
    let networks = stocks.into_iter().enumerate().map(|(number, (name, stock))| {
        let settings = documents::settings(world, at.node, number);
        (name, Network::new(stock, settings))
    });
    let networks = networks.collect();
    let machine = &mut world.machines[at.node];
    machine.agent = Some(Agent::new(world.setup.policy.clone(), membership, networks, seed));
    world.log(|| format!("n{} agent starts, epoch {epoch}", at.node));
    for number in 0..world.setup.networks {
        report(world, at.node, number, None);
    }
    step(world, at.node, Event::Time);
}

/// An agent ends: it is killed, or its node is off. Its questions stay on their way.
pub(crate) fn stop(world: &mut World, node: usize) {
    let machine = &mut world.machines[node];
    machine.life += 1;
    machine.agent = None;
    machine.cluster = None;
    machine.wakes.clear();
    machine.pending.clear();
    machine.held.clear();
    machine.stopped_until = Duration::ZERO;
}

/// The agent goes on, unless it was stopped again.
pub(crate) fn resumes(world: &mut World, node: usize) {
    let machine = &mut world.machines[node];
    if world.now >= machine.stopped_until {
        let held = std::mem::take(&mut machine.held);
        held.into_iter().for_each(|what| world.after(Duration::ZERO, what));
    }
}

/// Something happens to an agent or its doings.
pub(crate) fn happens(world: &mut World, at: At, what: Agents) {
    let machine = &mut world.machines[at.node];
    if machine.life != at.life || machine.agent.is_none() {
        return;
    }
    if world.now < machine.stopped_until {
        return machine.held.push(Happening::Agent(at, what));
    }
    match what {
        Agents::Time(uptime) => {
            machine.wakes.remove(&uptime);
            step(world, at.node, Event::Time);
        }
        Agents::Hears(event) => step(world, at.node, event),
        Agents::Answer(number, answer) => {
            if let Some(none) = machine.pending.remove(&number) {
                match answer {
                    Some(word) => documents::hears(world, at.node, *word),
                    None => step(world, at.node, none),
                }
            }
        }
        Agents::Grants(network, grants) => {
            let full = world.now < machine.full_until;
            let before = machine.networks[network].disk.clone();
            if !full || world.random.below(2) == 0 {
                let local = &mut world.machines[at.node].networks[network];
                local.synced.get_or_insert_with(|| before.clone());
                local.disk = grants;
                check::grants_written(world, at.node, network, &before);
            }
            if full {
                let found = world.machines[at.node].networks[network].disk.clone();
                let outcome = stock::Outcome::NotStored(found);
                return hears_soon(world, at, stock_event(world, at, network, outcome));
            }
            write(world, at, Agents::Synced(Some(network)));
        }
        Agents::Identity(identity) => {
            let full = world.now < machine.full_until;
            if !full || world.random.below(2) == 0 {
                let machine = &mut world.machines[at.node];
                machine.synced.get_or_insert_with(|| machine.identity.clone());
                machine.identity = identity;
            }
            if full {
                return hears_soon(world, at, Event::Register(membership::Outcome::Failed));
            }
            write(world, at, Agents::Synced(None));
        }
        Agents::Synced(Some(network)) => {
            machine.networks[network].synced = None;
            step(world, at.node, stock_event(world, at, network, stock::Outcome::Stored));
        }
        Agents::Synced(None) => {
            machine.synced = None;
            step(world, at.node, Event::Register(membership::Outcome::Saved));
        }
        Agents::Lock(network, action) => under_lock(world, at, network, action),
    }
}

pub(crate) fn stock_event(world: &World, at: At, network: usize, outcome: stock::Outcome) -> Event {
    Event::Stock(world.machines[at.node].networks[network].name.clone(), outcome)
}

fn hears_soon(world: &mut World, at: At, event: Event) {
    let pause = Duration::from_nanos(world.random.below(200_000) as u64);
    world.after(pause, Happening::Agent(at, Agents::Hears(event)));
}

/// Under the network's lock.
fn under_lock(world: &mut World, at: At, network: usize, action: stock::Action) {
    let now = world.now;
    let local = &mut world.machines[at.node].networks[network];
    if local.lock.is_some() {
        return local.behind.push(Happening::Agent(at, Agents::Lock(network, action)));
    }
    let outcome = match action {
        stock::Action::Inspect(block) => {
            let disk = local.disk.clone();
            local.offered.retain(|addr, _| block.offset(*addr).is_none() || disk.contains(*addr));
            let used = local.leases.keys().copied();
            let of_block = |addr: &std::net::IpAddr| block.offset(*addr).is_some() && !disk.contains(*addr);
            stock::Outcome::Inspected(used.filter(of_block).collect())
        }
        stock::Action::Offer(addrs) => {
            addrs.iter().for_each(|addr| local.offer(addr, now));
            let waiting: Vec<u64> = local.waiting.iter().copied().collect();
            for pod in waiting {
                world.after(Duration::from_micros(100), Happening::Pod(pod, Step::Look));
            }
            stock::Outcome::Offered
        }
        _ => return,
    };
    let event = stock_event(world, at, network, outcome);
    step(world, at.node, event);
}

/// The agent is told what the plugin's store says.
pub(crate) fn report(world: &mut World, node: usize, network: usize, recall: Option<Recall>) {
    let machine = &world.machines[node];
    if !machine.is_up(world.now) {
        return;
    }
    let now = world.now;
    let local = &mut world.machines[node].networks[network];
    if local.generation != local.disk.generation && local.lock.is_none() {
        local.make_queue(now);
    }
    let (name, report) = (local.name.clone(), local.report(now));
    let requested = local.requested.values().copied().collect();
    step(world, node, Event::Usage(name.clone(), report));
    step(world, node, Event::Requested(name.clone(), requested));
    if let Some(recall) = recall {
        step(world, node, Event::Recalled(name, recall));
    }
}

pub(crate) fn step(world: &mut World, node: usize, event: Event) {
    let now = world.now;
    let machine = &mut world.machines[node];
    let moment = machine.moment(now);
    let Some(agent) = &mut machine.agent else { return };
    let shown = world.verbose.then(|| format!("{event:?}"));
    let actions = agent.step(&moment, event);
    if let Some(shown) = shown {
        let told: Vec<_> = actions.iter().filter(|action| !matches!(action, Action::Wake(_))).collect();
        world.log(|| format!("n{node} {shown} -> {told:?}"));
    }
    for action in actions {
        act(world, node, action);
    }
}

fn act(world: &mut World, node: usize, action: Action) {
    let here = world.here(node);
    let now = world.now;
    match action {
        Action::Register(membership::Action::Read) => ask(world, here, Ask::Own),
        Action::Register(membership::Action::Swap(at, value)) => ask(world, here, Ask::SwapOwn(at, value)),
        Action::Register(membership::Action::Save(identity)) => {
            write(world, here, Agents::Identity(identity))
        }
        Action::Stock(name, action) => {
            let network = world.network_number(node, &name);
            match action {
                stock::Action::Store(grants) => write(world, here, Agents::Grants(network, grants)),
                stock::Action::Read(block) => ask(world, here, Ask::Read(network, block)),
                stock::Action::Swap(block, at, value) => {
                    ask(world, here, Ask::Swap(network, block, at, value));
                }
                action => {
                    let pause = Duration::from_micros(100);
                    world.after(pause, Happening::Agent(here, Agents::Lock(network, action)));
                }
            }
        }
        Action::Confirm(name, confirmation) => {
            let network = world.network_number(node, &name);
            let local = &mut world.machines[node].networks[network];
            local.confirmation = Some(confirmation);
            for pod in local.waiting.clone() {
                world.after(Duration::from_micros(100), Happening::Pod(pod, Step::Look));
            }
        }
        Action::Withdraw(name) => {
            let network = world.network_number(node, &name);
            world.machines[node].networks[network].confirmation = None;
        }
        Action::List(name) => {
            let network = world.network_number(node, &name);
            ask(world, here, Ask::List(network));
        }
        Action::Look(name) => ask(world, here, Ask::Look(name)),
        Action::Ask(name, nodes, recall) => recalls(world, node, &name, &nodes, recall),
        Action::Dry(..) => {}
        Action::Recover(name, restored) => {
            let network = world.network_number(node, &name);
            if !world.setup.restores {
                world.fail(format!("n{node} finds that the store went back"));
            }
            ask(world, here, Ask::Recover(network, restored));
        }
        Action::Fenced(..) => world.counts.fenced += 1,
        Action::Refused(_) if world.has_namesake(node) => world.counts.namesakes += 1,
        Action::Refused(register) => world.fail(format!("n{node} is refused by {register:?}")),
        Action::Wake(uptime) => {
            let machine = &mut world.machines[node];
            if machine.wakes.insert(uptime) {
                let time = machine.true_time(uptime.max(machine.uptime(now)));
                world.at(time, Happening::Agent(here, Agents::Time(uptime)));
            }
        }
    }
}

/// A half of a write to the disk: what is read is new after the first, and synced after the second.
fn write(world: &mut World, here: At, what: Agents) {
    let pause = world.random.millis(1, 10);
    world.after(pause, Happening::Agent(here, what));
}
