//! Runs a world: time in which things go wrong, quiet, and the search for every address that is idle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use vlan_bridge_pool::block::BlockKey;
use vlan_bridge_pool::entry::{Entry, Holder};
use vlan_bridge_pool::grants::Grants;
use vlan_bridge_pool::history::{self, What};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::register::{Identity, Register, State};
use vlan_bridge_pool::runs::Runs;

use crate::happening::Happening;
use crate::machine::{Local, Machine};
use crate::random::Random;
use crate::setup::Setup;
use crate::store::Store;
use crate::world::World;
use crate::{check, documents, driver, misfortune, plugin, requests};

/// How often an agent looks at the plugin's store.
const LOOKS: Duration = Duration::from_secs(60);
/// How long nothing happens before the end is looked at.
const QUIET: Duration = Duration::from_secs(30 * 60);
/// More happenings than a small world has: an agent does something without end.
const MOST: u64 = 2_000_000;
/// Within this time a node has every address that is idle, and no node is lost.
const DRAINED: Duration = Duration::from_secs(15 * 60);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The slice of a node: its share of the first addresses of the first pool.
pub(crate) fn slice(setup: &Setup, node: usize, network: usize) -> Runs {
    let count = if network == 0 { setup.home } else { 0 };
    setup.pools[0].iter().skip(node * count).take(count).collect()
}

/// A node as it is when it boots for the first time. Its home addresses are its own already.
fn machine(setup: &Setup, random: &mut Random, store: &mut Store, node: usize) -> Machine {
    // The last machine may have the name of the first.
    let own = name(&format!("n{}", node % setup.nodes));
    let epoch = u32::from(setup.home > 0);
    let identity = Identity { instance: format!("i{node}"), epoch, since: epoch, seq: epoch.into() };
    if setup.home > 0 {
        let Identity { instance, epoch, seq, .. } = identity.clone();
        let (boot, state, give_for) = ("before".into(), State::Live, setup.policy.give_for);
        let register =
            Register { instance, boot, epoch, seq, state, lost: 0, gone: 0, give_for, pools: [].into() };
        store.put_register(&own, register);
    }
    let networks = (0..setup.networks).map(|network| {
        let home = slice(setup, node, network);
        let local = name(&format!("v{network}"));
        let blocks: BTreeSet<BlockKey> = home.iter().map(BlockKey::of).collect();
        for block in &blocks {
            let (version, mut value) = store.block((0, *block));
            for addr in home.iter().filter(|addr| block.offset(*addr).is_some()) {
                let by = Holder { node: own.clone(), network: local.clone(), epoch };
                // Before its first agent a node has its slice all the same.
                let entry = if node.is_multiple_of(2) { Entry::Slice(own.clone()) } else { Entry::Home(by) };
                value.set(block.offset(addr).unwrap(), Some(entry));
            }
            store.swap_block((0, *block), &version, value, true);
        }
        Local {
            name: local.clone(),
            slice: home.clone(),
            disk: Grants {
                pool: name(&format!("p{}", setup.pool_of(network))),
                pool_id: "id".into(),
                node: own.clone(),
                network: local,
                epoch,
                restored: 0,
                generation: 0,
                home,
                leased: Runs::EMPTY,
                unproven: Runs::EMPTY,
                blocks,
            },
            synced: None,
            confirmation: None,
            offered: BTreeMap::new(),
            leases: BTreeMap::new(),
            generation: 0,
            lock: None,
            behind: Vec::new(),
            waiting: BTreeSet::new(),
            requested: BTreeMap::new(),
            quarantined: BTreeMap::new(),
        }
    });
    let networks = networks.collect();
    Machine {
        drift: random.between(0, 20_000) as i64 - 10_000,
        name: own,
        boot: 0,
        booted_at: Duration::ZERO,
        steps: 0,
        on: true,
        for_good: false,
        identity,
        synced: None,
        documents: store.documents.clone(),
        documents_at: (0, 0),
        documents_since: Duration::ZERO,
        cluster: None,
        networks,
        agent: None,
        life: 0,
        stopped_until: Duration::ZERO,
        held: Vec::new(),
        cut_until: Duration::ZERO,
        full_until: Duration::ZERO,
        wakes: BTreeSet::new(),
        pending: BTreeMap::new(),
        asked: 0,
    }
}

/// A world in which every node boots, within `spread`.
pub(crate) fn world(setup: Setup, mut random: Random, spread: Duration) -> World {
    let mut store = Store::default();
    let nodes = setup.nodes;
    store.documents = (0..setup.pools.len()).map(|pool| setup.document(pool, "id")).collect();
    let machines = (0..nodes + usize::from(setup.namesake))
        .map(|node| machine(&setup, &mut random, &mut store, node))
        .collect();
    for (pool, runs) in setup.pools.iter().enumerate() {
        store.free.extend(runs.iter().map(|addr| (pool, BlockKey::of(addr))));
    }
    let mut world = World::new(setup, random, store, machines);
    for node in 0..nodes {
        let pause = world.random.time(Duration::ZERO, spread);
        let here = world.here(node);
        world.after(pause, Happening::Start(here));
        let pause = world.random.time(Duration::ZERO, LOOKS);
        world.after(pause, Happening::Timer(node));
    }
    world
}

/// Lets everything happen until then.
pub(crate) fn until(world: &mut World, end: Duration) {
    while let Some(what) = world.next(end) {
        happens(world, what);
        if world.setup.strict && world.counts.events > MOST {
            world.fail("it does not end".into());
        }
        if world.failure.is_some() {
            return;
        }
    }
}

fn happens(world: &mut World, what: Happening) {
    match what {
        Happening::Agent(at, what) => driver::happens(world, at, what),
        Happening::Arrives(from, ask, number) => requests::arrives(world, from, ask, number),
        Happening::Report(node, network, recall) => driver::report(world, node, network, recall),
        Happening::Start(at) => driver::start(world, at),
        Happening::Resumes(node) => driver::resumes(world, node),
        Happening::Boot(node) => misfortune::boots(world, node),
        Happening::Pod(number, step) => plugin::step(world, number, step),
        Happening::Misfortune => misfortune::strikes(world),
        Happening::Documents(node) => documents::connects(world, node),
        Happening::Operator => documents::operator(world),
        Happening::Timer(node) => {
            for network in 0..world.setup.networks {
                driver::report(world, node, network, None);
            }
            documents::connects(world, node);
            world.after(LOOKS, Happening::Timer(node));
        }
        Happening::NewPod if !world.quiet => {
            // Some nodes have more pods than others, and not always the same.
            let skew = (world.now.as_secs() / 1_200) as usize;
            let nodes = world.machines.len();
            let most = world.random.between(1, nodes);
            let node = (world.random.below(most) + skew) % nodes;
            let network = world.random.below(world.setup.networks);
            let count = if world.random.below(50) == 0 { world.random.between(2, 40) } else { 1 };
            (0..count).for_each(|_| plugin::begin(world, node, network));
            let mean = world.setup.between_pods;
            let pause = world.random.time(Duration::ZERO, mean * 2);
            world.after(pause, Happening::NewPod);
        }
        Happening::NewPod => {}
        Happening::Begin(node, network) => plugin::begin(world, node, network),
    }
}

/// Runs a small world to its end.
pub(crate) fn small(seed: u64, verbose: bool) -> World {
    let mut random = Random::new(seed);
    let setup = Setup::small(&mut random);
    let mut world = world(setup, random, Duration::from_secs(5));
    world.verbose = verbose;
    world.log(|| format!("{:?}", world.setup));
    world.after(Duration::from_secs(1), Happening::NewPod);
    world.after(Duration::from_secs(30), Happening::Misfortune);
    world.after(LOOKS, Happening::Operator);
    if world.setup.namesake {
        let last = world.machines.len() - 1;
        world.machines[last].on = false;
        let pause = world.random.time(Duration::ZERO, world.setup.trouble);
        world.after(pause, Happening::Boot(last));
        world.after(LOOKS, Happening::Timer(last));
    }
    let end = world.setup.trouble;
    until(&mut world, end);
    if world.failure.is_some() {
        return world;
    }
    misfortune::end(&mut world);
    world.log(|| "all is quiet".into());
    until(&mut world, end + QUIET);
    rests(&mut world);
    if world.failure.is_none() {
        drain(&mut world);
    }
    if world.failure.is_none() {
        check_histories(&mut world);
    }
    world
}

/// The checker of histories sees only what pods got and gave back, and what the nodes hold in the end.
fn check_histories(world: &mut World) {
    for pool in 0..world.histories.len() {
        let mut held = Vec::new();
        for (node, machine) in world.machines.iter().enumerate().filter(|(_, machine)| machine.on) {
            for network in world.setup.networks_of(pool) {
                // An ADD that has not ended yet is not in the history.
                let running = machine.networks[network].leases.iter().filter(|(_, (_, runs))| *runs);
                held.extend(running.map(|(addr, (number, _))| What::Held(world.named(node, *number), *addr)));
            }
        }
        held.into_iter().for_each(|what| world.record(pool, what));
        let (doubles, leaks) =
            (history::check(&world.histories[pool]), history::leaks(&world.histories[pool]));
        if !doubles.is_empty() || !leaks.is_empty() {
            world.fail(format!("the history of pool {pool} has {doubles:?}, {leaks:?}"));
        }
    }
}

/// I8. A claim may still be on its way: then it is looked at again.
fn rests(world: &mut World) {
    for try_again in (0..60).rev() {
        match check::at_rest(world) {
            _ if world.failure.is_some() => return,
            None => return,
            Some(wrong) if try_again == 0 => return world.fail(wrong),
            Some(_) => {
                let next = world.now + Duration::from_secs(1);
                until(world, next);
            }
        }
    }
}

/// I7: one node gets every address that is idle anywhere.
fn drain(world: &mut World) {
    let is_live = |node: &usize| {
        world.machines[*node].on && world.machine_of(&world.machines[*node].name) == Some(*node)
    };
    let live: Vec<usize> = (0..world.machines.len()).filter(is_live).collect();
    let node = world.random.one_of(&live);
    let network = world.random.below(world.setup.networks);
    let pool = world.setup.pool_of(network);
    let idle = world.setup.pools[pool].iter().filter(|addr| is_idle(world, node, network, *addr)).count();
    let lost = world.setup.namesake || world.machines.iter().any(|machine| machine.for_good);
    let wait = world.setup.policy.give_for.filter(|_| lost).unwrap_or_default();
    let end = world.now + (wait + world.setup.policy.margin) * 2 + DRAINED;
    world.log(|| format!("n{node} network {network} needs all of {idle} addresses"));
    if idle == 0 {
        return;
    }
    let begun = world.now;
    let at_once = world.random.between(1, 8).min(idle);
    world.drains = Some((idle - at_once, at_once));
    (0..at_once).for_each(|_| plugin::begin(world, node, network));
    let missing = |world: &World| idle.saturating_sub(world.counts.drained);
    let mut rounds = 0;
    while missing(world) > 0 && world.now < end && world.failure.is_none() {
        let next = world.now + Duration::from_secs(10);
        until(world, next);
        rounds += 1;
    }
    if missing(world) > 0 && world.failure.is_none() {
        let entries: Vec<String> = world.setup.pools[pool]
            .iter()
            .filter(|addr| is_idle(world, node, network, *addr))
            .map(|addr| {
                format!("{addr} {:?}", check::entry(world, pool, addr).map(|entry| entry.to_string()))
            })
            .collect();
        world.fail(format!("I7: n{node} misses {} of {idle} addresses: {entries:?}", missing(world)));
    }
    world.log(|| format!("drained in {:?}, {rounds} rounds", world.now - begun));
}

/// Whether a network of a node can get an address.
fn is_idle(world: &World, node: usize, network: usize, addr: IpAddr) -> bool {
    let pool = world.setup.pool_of(network);
    let networks = |machine: &Machine| {
        let of_pool = machine.networks.iter().enumerate();
        of_pool
            .filter(|(number, _)| world.setup.pool_of(*number) == pool)
            .any(|(_, local)| local.leases.contains_key(&addr) || local.is_quarantined(addr, world.now))
    };
    if world.machines.iter().any(networks) {
        return false;
    }
    let Some(entry) = check::entry(world, pool, addr) else { return true };
    if let Entry::Slice(of) = &entry {
        // Only an operator gives away what a node had before its first agent.
        return world.machines[node].name == *of && network == 0;
    }
    let Entry::Home(holder) = &entry else { return true };
    let own = world.machines[node].name == holder.node
        && world.machines[node].networks[network].name == holder.network;
    let gone = world.machines.iter().any(|machine| machine.name == holder.node && machine.for_good);
    own || gone || world.setup.lends
}
