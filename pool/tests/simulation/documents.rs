//! The documents of the pools, what their operator does, and a store that goes back to a backup.

use std::time::Duration;

use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::block::Block;
use vlan_bridge_pool::document::{Document, PoolState};
use vlan_bridge_pool::entry::Entry;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Settings;
use vlan_bridge_pool::register::State;

use crate::driver;
use crate::happening::{Happening, Word};
use crate::store::Store;
use crate::world::World;

/// How often the operator looks at the pools.
const OPERATOR: Duration = Duration::from_secs(60);
/// How many backups there are at most.
const BACKUPS: usize = 3;

/// What a network of a node is configured to do, as far as the node knows the document.
pub(crate) fn settings(world: &World, node: usize, network: usize) -> Settings {
    let document = &world.machines[node].documents[world.setup.pool_of(network)];
    Settings::of(document, world.setup.marks, world.setup.lends)
}

/// What the store says now.
pub(crate) fn word(store: &Store, with_documents: bool, event: Event) -> Word {
    let documents = with_documents.then(|| store.documents.clone());
    Word { at: (store.cluster, store.revision), documents, event }
}

/// An agent hears what the store said.
pub(crate) fn hears(world: &mut World, node: usize, word: Word) {
    let now = world.now;
    let machine = &mut world.machines[node];
    let Word { at, documents, event } = word;
    if machine.cluster.is_some_and(|known| known < at.0) {
        machine.cluster = Some(at.0);
        driver::step(world, node, Event::WentBack);
    }
    let machine = &mut world.machines[node];
    machine.cluster = machine.cluster.max(Some(at.0));
    if let Some(documents) = documents.filter(|_| at >= machine.documents_at) {
        machine.documents_at = at;
        if documents != machine.documents {
            (machine.documents, machine.documents_since) = (documents, now);
            for network in 0..world.setup.networks {
                let settings = settings(world, node, network);
                let machine = &mut world.machines[node];
                let name = machine.networks[network].name.clone();
                machine.agent.iter_mut().for_each(|agent| agent.configure(&name, settings.clone()));
            }
        }
    }
    driver::step(world, node, event);
}

/// A node's agent hears of changed documents, or connects to the store again.
pub(crate) fn connects(world: &mut World, node: usize) {
    let machine = &world.machines[node];
    if machine.is_up(world.now) && world.now >= machine.cut_until.max(world.store.away_until) {
        let word = word(&world.store, true, Event::Time);
        hears(world, node, word);
    }
}

/// A document is written: all hear of it soon.
pub(crate) fn put(world: &mut World, pool: usize, document: Document) {
    world.log(|| format!("pool {pool} is {:?}, restored {}", document.state, document.restored));
    world.store.put_document(pool, document);
    tell(world);
}

fn tell(world: &mut World) {
    for node in 0..world.machines.len() {
        let pause = world.random.millis(1, 2_000);
        world.after(pause, Happening::Documents(node));
    }
}

/// A node asks that the document says that the store went back.
pub(crate) fn recovers(world: &mut World, pool: usize, restored: u32) {
    if let Some(document) = world.store.documents[pool].recovering(restored) {
        put(world, pool, document);
        world.unnoticed.retain(|unnoticed| *unnoticed != pool);
    }
}

/// The operator opens pools in which all is well, and sometimes freezes one.
pub(crate) fn operator(world: &mut World) {
    world.after(OPERATOR, Happening::Operator);
    for pool in 0..world.store.documents.len() {
        if world.unnoticed.contains(&pool) && (world.quiet || world.random.below(4) == 0) {
            // The agents that noticed were killed before they could say so. The operator knows.
            let known = world
                .machines
                .iter()
                .map(|machine| machine.networks.iter().map(|local| local.disk.restored).max())
                .max()
                .flatten();
            recovers(world, pool, known.unwrap_or_default() + 1);
        }
        let document = world.store.documents[pool].clone();
        let thaws = match document.state {
            PoolState::Open => false,
            PoolState::Frozen => world.quiet || world.random.below(4) == 0,
            PoolState::Recovering => may_open(world, pool, document.restored),
        };
        if thaws {
            put(world, pool, Document { state: PoolState::Open, ..document });
        } else if document.state == PoolState::Open && !world.quiet && world.random.below(60) == 0 {
            put(world, pool, Document { state: PoolState::Frozen, ..document });
        }
    }
    let closed = |document: &Document| document.state == PoolState::Recovering;
    if world.went_back && world.unnoticed.is_empty() && !world.store.documents.iter().any(closed) {
        world.log(|| "all pools are open again".into());
        world.went_back = false;
    }
    if !world.quiet && world.setup.restores {
        backup(world);
    }
}

/// Whether every node has caught up, and every ADD that had chosen an address by then has ended. Its pod
/// answers no probe before.
fn may_open(world: &mut World, pool: usize, restored: u32) -> bool {
    if !all_are_back(world, pool, restored) {
        world.back_since.remove(&pool);
        return false;
    }
    let margin = world.setup.policy.margin;
    let since = *world.back_since.entry(pool).or_insert(world.now);
    let opens = world.now - since >= margin + margin / 32;
    if opens {
        world.back_since.remove(&pool);
    }
    opens
}

/// Whether every node has caught up, or is off for good.
fn all_are_back(world: &mut World, pool: usize, restored: u32) -> bool {
    let name = world.machines[0].networks[world.setup.networks_of(pool)[0]].pool_name();
    (0..world.machines.len()).all(|node| {
        let (machine, by) = (&world.machines[node], Name::new("operator").unwrap());
        let Some((_, register)) = world.store.registers.get(&machine.name) else { return machine.for_good };
        if machine.for_good {
            let marked = register.marked(State::Gone { by });
            let own = machine.name.clone();
            marked.into_iter().for_each(|register| world.store.put_register(&own, register));
            return true;
        }
        !register.is_behind(&name, restored) && register.pools.contains_key(&name)
    })
}

/// A backup is made, or takes the store's place.
fn backup(world: &mut World) {
    match world.random.below(30) {
        0..3 => {
            let store = world.store.clone();
            world.backups.push(store);
            let many = world.backups.len() > BACKUPS;
            many.then(|| world.backups.remove(0));
        }
        3 => restore(world),
        _ => {}
    }
}

/// The store goes back. It has versions of its own. Some agent knows what it was: an agent that starts before
/// one says so knows nothing.
fn restore(world: &mut World) {
    let now = world.now;
    let reaches = |world: &World, node: usize| {
        let machine = &world.machines[node];
        let knows = machine.cluster == Some(world.store.cluster);
        machine.is_up(now) && now >= machine.cut_until.max(world.store.away_until) && knows
    };
    if world.went_back || !(0..world.machines.len()).any(|node| reaches(world, node)) {
        return;
    }
    let number = world.random.below(world.backups.len() + 1);
    let mut store = world.backups.get(number).cloned().unwrap_or_else(|| empty(world));
    let Store { revision, cluster, requests, away_until, .. } = &world.store;
    (store.revision, store.cluster) = (revision + 1_000_000, cluster + 1);
    (store.requests, store.away_until) = (*requests, *away_until);
    world.log(|| format!("the store goes back to backup {number} of {}", world.backups.len()));
    world.counts.restored += 1;
    (world.store, world.went_back) = (store, true);
    world.unnoticed = (0..world.setup.pools.len()).collect();
    world.backups.clear();
    for node in 0..world.machines.len() {
        if world.machines[node].agent.is_some() && world.machines[node].cluster.is_none() {
            driver::stop(world, node);
            world.after(Duration::ZERO, Happening::Start(world.here(node)));
        }
    }
    tell(world);
}

/// A store with nothing but pools that an operator has made again, with the nodes' slices.
fn empty(world: &mut World) -> Store {
    let id = format!("id{}", world.store.cluster + 1);
    let documents = (0..world.setup.pools.len()).map(|pool| world.setup.document(pool, &id)).collect();
    let mut store = Store { documents, ..Store::default() };
    for (pool, runs) in world.setup.pools.iter().enumerate() {
        for addr in runs.iter() {
            let block = vlan_bridge_pool::block::BlockKey::of(addr);
            store.free.insert((pool, block));
            let owner = world.machines.iter().find(|machine| machine.networks[0].slice.contains(addr));
            if let Some(owner) = owner.filter(|_| pool == 0) {
                let (_, value): &mut (u64, Block) = store.blocks.entry((pool, block)).or_default();
                value.set(block.offset(addr).unwrap(), Some(Entry::Slice(owner.name.clone())));
            }
        }
    }
    store
}
