//! Requests to the store, on their way and back.

use std::time::Duration;

use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::membership;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;
use vlan_bridge_pool::stock;
use vlan_bridge_pool::version::Swap;

use crate::driver::stock_event;
use crate::happening::{Agents, Ask, At, Happening, Word};
use crate::world::World;
use crate::{check, documents};

/// After this an agent gives up a question.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most blocks in an answer to a question for free ones.
const LISTED: usize = 50;

pub(crate) fn recalls(world: &mut World, node: usize, name: &Name, nodes: &[Name], recall: Recall) {
    let own = world.network_number(node, name);
    let pool = world.setup.pool_of(own);
    for asked in nodes {
        world.store.requests += 1;
        let lost = world.setup.recalls_lost;
        let Some(asked) = world.machine_of(asked) else { continue };
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
pub(crate) fn ask(world: &mut World, here: At, ask: Ask) {
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
