//! Drives the agents: what they ask for is done, on the node or in the store, and takes its time.

use std::time::Duration;

use vlan_bridge_pool::agent::{Action, Agent, Event};
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::membership::{self, Membership};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::{Network, Recall};
use vlan_bridge_pool::plan::Me;
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::stock::{self, Stock};
use vlan_bridge_pool::version::Swap;

use crate::happening::{Agents, Ask, At, Happening, Step, Word};
use crate::world::World;
use crate::{check, documents};

/// After this an agent gives up a question.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most blocks in an answer to a question for free ones.
const LISTED: usize = 50;

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
            let written = !full || world.random.below(2) == 0;
            let before = machine.networks[network].disk.clone();
            if written {
                world.machines[at.node].networks[network].disk = grants.clone();
                check::grants_written(world, at.node, network, &before);
            }
            let found = if written { grants } else { before };
            let outcome = if full { stock::Outcome::NotStored(found) } else { stock::Outcome::Stored };
            hears_soon(world, at, stock_event(world, at, network, outcome));
        }
        Agents::Identity(identity) => {
            let full = world.now < machine.full_until;
            if !full || world.random.below(2) == 0 {
                world.machines[at.node].identity = identity;
            }
            let outcome = if full { membership::Outcome::Failed } else { membership::Outcome::Saved };
            hears_soon(world, at, Event::Register(outcome));
        }
        Agents::Lock(network, action) => under_lock(world, at, network, action),
    }
}

fn stock_event(world: &World, at: At, network: usize, outcome: stock::Outcome) -> Event {
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
    step(world, node, Event::Usage(name.clone(), report));
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

/// A write to the disk, with a sync.
fn write(world: &mut World, here: At, what: Agents) {
    let pause = world.random.millis(1, 20);
    world.after(pause, Happening::Agent(here, what));
}

fn recalls(world: &mut World, node: usize, name: &Name, nodes: &[Name], recall: Recall) {
    let own = world.network_number(node, name);
    let pool = world.setup.pool_of(own);
    for asked in nodes {
        world.store.requests += 1;
        let lost = world.setup.recalls_lost;
        let Some(asked) = world.machines.iter().position(|machine| machine.name == *asked) else { continue };
        if world.bad_luck(lost) || world.now < world.machines[node].cut_until.max(world.store.away_until) {
            continue;
        }
        let (least, most) = world.setup.delay;
        let pause = world.random.time(2 * least, 4 * most);
        let mut networks = world.setup.networks_of(pool);
        networks.retain(|network| (asked, *network) != (node, own));
        for network in networks {
            world.after(pause, Happening::Report(asked, network, Some(recall)));
        }
    }
}

/// Sends a request to the store.
fn ask(world: &mut World, here: At, ask: Ask) {
    let machine = &mut world.machines[here.node];
    machine.asked += 1;
    let number = machine.asked;
    let name = |network: usize| machine.networks[network].name.clone();
    let none = match &ask {
        Ask::Own => Event::Register(membership::Outcome::Failed),
        Ask::SwapOwn(..) => Event::Register(membership::Outcome::Swapped(Swap::Unknown)),
        Ask::Look(node) => Event::Looked(node.clone(), None),
        Ask::Read(network, _) => Event::Stock(name(*network), stock::Outcome::Failed),
        Ask::Swap(network, ..) => Event::Stock(name(*network), stock::Outcome::Swapped(Swap::Unknown)),
        Ask::List(network) => Event::Listed(name(*network), Vec::new()),
        Ask::Recover(..) => Event::Time,
    };
    machine.pending.insert(number, none);
    world.after(TIMEOUT, Happening::Agent(here, Agents::Answer(number, None)));
    let (least, most) = world.setup.delay;
    let pause = world.random.time(least, most);
    let (lost, late, twice) = (world.setup.lost, world.setup.late, world.setup.twice);
    if world.bad_luck(lost) {
        // The request or the answer is lost.
        if world.random.below(2) == 0 {
            world.after(pause, Happening::Arrives(here, ask, None));
        }
        return;
    }
    if world.bad_luck(late) {
        let pause = world.random.millis(1_000, 120_000);
        return world.after(pause, Happening::Arrives(here, ask, Some(number)));
    }
    if world.bad_luck(twice) {
        // A proxy that had no answer sends it again. It passes on whichever answer comes.
        let (first, second) = (world.random.below(2) == 0, world.random.millis(1, 10_000));
        world.after(pause, Happening::Arrives(here, ask.clone(), first.then_some(number)));
        return world.after(second, Happening::Arrives(here, ask, Some(number)));
    }
    world.after(pause, Happening::Arrives(here, ask, Some(number)));
}

/// A request comes to the store.
pub(crate) fn arrives(world: &mut World, from: At, ask: Ask, number: Option<u64>) {
    world.store.requests += 1;
    let (least, most) = world.setup.delay;
    let pause = world.random.time(least, most);
    if world.now < world.store.away_until.max(world.machines[from.node].cut_until) {
        // Half of those who ask hear at once that there is no store.
        if let Some(number) = number.filter(|_| world.random.below(2) == 0) {
            let refused = refused(world, from, &ask).map(|event| {
                let at = (0, 0);
                Box::new(Word { at, documents: None, event })
            });
            world.after(pause, Happening::Agent(from, Agents::Answer(number, refused)));
        }
        return;
    }
    let documents = matches!(ask, Ask::Own | Ask::Recover(..));
    let event = answer(world, from, ask);
    if let Some(number) = number {
        let word = Box::new(documents::word(&world.store, documents, event));
        world.after(pause, Happening::Agent(from, Agents::Answer(number, Some(word))));
    }
}

/// What an agent hears whose request was refused. None if that is what it hears without an answer.
fn refused(world: &World, from: At, ask: &Ask) -> Option<Event> {
    match ask {
        Ask::SwapOwn(..) => Some(Event::Register(membership::Outcome::Failed)),
        Ask::Swap(network, ..) => Some(stock_event(world, from, *network, stock::Outcome::Failed)),
        _ => None,
    }
}

fn answer(world: &mut World, from: At, ask: Ask) -> Event {
    let node = world.machines[from.node].name.clone();
    let pool = |world: &World, network: usize| world.setup.pool_of(network);
    match ask {
        Ask::Own => {
            let (version, register) = world.store.register(&node);
            Event::Register(membership::Outcome::Read(version, register))
        }
        Ask::SwapOwn(at, value) => {
            let swap = world.store.swap_register(&node, &at, value);
            Event::Register(membership::Outcome::Swapped(swap))
        }
        Ask::Look(other) => {
            let (_, register) = world.store.register(&other);
            Event::Looked(other, register)
        }
        Ask::Read(network, block) | Ask::Swap(network, block, ..)
            if world.store.unreadable.contains(&(pool(world, network), block)) =>
        {
            stock_event(world, from, network, stock::Outcome::Unreadable)
        }
        Ask::Read(network, block) => {
            let (version, value) = world.store.block((pool(world, network), block));
            stock_event(world, from, network, stock::Outcome::Read(version, value))
        }
        Ask::Swap(network, block, at, value) => {
            let key = (pool(world, network), block);
            let free = has_free(world, key, &value);
            let (swap, before) = world.store.swap_block(key, &at, value, free);
            if let Some(before) = before {
                check::block_written(world, from.node, key, &before);
            }
            stock_event(world, from, network, stock::Outcome::Swapped(swap))
        }
        Ask::Recover(network, restored) => {
            documents::recovers(world, pool(world, network), restored);
            Event::Time
        }
        Ask::List(network) => {
            let pool = pool(world, network);
            let skipped = world.random.below(world.store.free.len().max(1));
            let ours = world.store.free.iter().filter(|(of, _)| *of == pool).map(|(_, block)| *block);
            let mut blocks: Vec<BlockKey> = ours.collect();
            let most = blocks.len().max(1);
            blocks.rotate_left(skipped % most);
            blocks.truncate(LISTED);
            Event::Listed(world.machines[from.node].networks[network].name.clone(), blocks)
        }
    }
}

fn has_free(world: &World, (pool, block): (usize, BlockKey), value: &Block) -> bool {
    let range = &world.setup.pools[pool];
    let free = |(offset, addr): (usize, std::net::IpAddr)| {
        range.contains(addr) && value.entry(offset as u8).is_none()
    };
    block.addresses().enumerate().any(free)
}
