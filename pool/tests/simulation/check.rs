//! What must hold at every event.

use std::net::IpAddr;

use vlan_bridge_pool::block::Block;
use vlan_bridge_pool::entry::Entry;
use vlan_bridge_pool::grants::Grants;

use crate::machine::Machine;
use crate::store::Key;
use crate::world::World;

fn is_of(world: &World, entry: Option<&Entry>, node: usize, network: usize) -> bool {
    let machine = &world.machines[node];
    if let Some(Entry::Slice(of)) = entry {
        return *of == machine.name && !machine.networks[network].slice.is_empty();
    }
    entry
        .and_then(Entry::holder)
        .is_some_and(|holder| holder.node == machine.name && holder.network == machine.networks[network].name)
}

/// Whether the store says that a node lives under the epoch of its grants.
fn lives(world: &World, node: usize, network: usize) -> bool {
    let machine = &world.machines[node];
    lives_under(world, node, machine.networks[network].disk.epoch)
}

fn lives_under(world: &World, node: usize, epoch: u32) -> bool {
    let register = world.store.registers.get(&world.machines[node].name);
    register.is_some_and(|(_, register)| register.lives(epoch))
}

/// The store's entry of an address.
pub(crate) fn entry(world: &World, pool: usize, addr: IpAddr) -> Option<Entry> {
    let block = vlan_bridge_pool::block::BlockKey::of(addr);
    let (_, value) = world.store.blocks.get(&(pool, block))?;
    value.entry(block.offset(addr)?).cloned()
}

/// I2: what a node gives is its own in the store, as long as the node lives.
pub(crate) fn chosen(world: &mut World, node: usize, network: usize, addr: IpAddr) {
    if !world.setup.strict || world.went_back || world.has_namesake(node) {
        return;
    }
    let entry = entry(world, world.setup.pool_of(network), addr);
    if !is_of(world, entry.as_ref(), node, network) && lives(world, node, network) {
        world.fail(format!("I2: n{node} gives {addr}, which is not its own: {entry:?}"));
    }
}

/// I4: what comes into the grants of a node that lives is its own in the store. What was written of it and
/// not answered must not take it away again later: [`block_written`] sees that.
pub(crate) fn grants_written(world: &mut World, node: usize, network: usize, before: &Grants) {
    if !world.setup.strict || world.went_back || world.has_namesake(node) || !lives(world, node, network) {
        return;
    }
    let disk = &world.machines[node].networks[network].disk;
    let pool = world.setup.pool_of(network);
    let mut gained = disk.home.iter().chain(disk.leased.iter()).filter(|addr| !before.contains(*addr));
    let not_own = |addr: &IpAddr| !is_of(world, entry(world, pool, *addr).as_ref(), node, network);
    let found = gained.find(not_own);
    drop(gained);
    if let Some(addr) = found {
        world.fail(format!("I4: {addr} comes into the grants of n{node}, which does not hold it"));
    }
}

/// A block was written by a node. What is taken from a node that lives must not be in its grants.
pub(crate) fn block_written(world: &mut World, by: usize, (pool, block): Key, before: &Block) {
    if !world.setup.strict || world.went_back {
        return;
    }
    let after = world.store.blocks[&(pool, block)].1.clone();
    for (offset, addr) in block.addresses().enumerate() {
        let (was, is) = (before.entry(offset as u8), after.entry(offset as u8));
        for network in world.setup.networks_of(pool) {
            if was == is {
                continue;
            }
            for node in 0..world.machines.len() {
                let taken = is_of(world, was, node, network) && !is_of(world, is, node, network);
                let granted = world.machines[node].networks[network].disk.contains(addr);
                let epoch = was.and_then(Entry::holder).map_or(0, |holder| holder.epoch);
                let register = world.store.registers.get(&world.machines[node].name);
                let lives = register.is_some_and(|(_, register)| register.lives(epoch));
                if taken && granted && lives && !world.has_namesake(node) {
                    world.fail(format!("I2: n{by} turns {was:?} of {addr} into {is:?}, and n{node} lives"));
                }
            }
        }
        if was != is {
            world.log(|| format!("n{by} wrote {addr}: {} -> {}", shown(was), shown(is)));
        }
    }
}

fn shown(entry: Option<&Entry>) -> String {
    entry.map_or("free".into(), ToString::to_string)
}

/// I8: when all is quiet, every address is free or held by a node that lives and has it in its grants, and
/// every lease lies in its node's grants.
pub(crate) fn at_rest(world: &World) -> Option<String> {
    let mut wrong = Vec::new();
    for ((pool, block), (_, value)) in &world.store.blocks {
        if Block::parse(value.to_json().to_string().as_bytes()).as_ref() != Ok(value) {
            wrong.push(format!("{block} is not read as it is written"));
        }
        for (offset, entry) in value.entries() {
            let Some(holder) = entry.holder() else { continue };
            let addr = block.address(offset);
            let node = world.machine_of(&holder.node).unwrap();
            let network = world.network_number(node, &holder.network);
            let granted = world.machines[node].networks[network].disk.contains(addr);
            let is_epoch = world.machines[node].networks[network].disk.epoch == holder.epoch;
            let settled = granted && is_epoch && lives(world, node, network);
            // What a namesake left becomes suspect when somebody needs it.
            let left = world.has_namesake(node) && !lives_under(world, node, holder.epoch);
            if *pool != world.setup.pool_of(network) || !(settled || left || world.machines[node].for_good) {
                wrong.push(format!(
                    "I8: {addr} is {entry}, and n{node} has {:?}",
                    world.machines[node].networks[network].disk
                ));
            }
        }
    }
    let is_live =
        |node: usize, machine: &Machine| machine.on && world.machine_of(&machine.name) == Some(node);
    let live = world.machines.iter().enumerate().filter(|(node, machine)| is_live(*node, machine));
    for (node, machine) in live {
        for (network, local) in machine.networks.iter().enumerate() {
            for addr in local.disk.home.iter().chain(local.disk.leased.iter()) {
                let entry = entry(world, world.setup.pool_of(network), addr);
                if !is_of(world, entry.as_ref(), node, network) {
                    wrong.push(format!("I2: at rest n{node} has {addr} in its grants, which is {entry:?}"));
                }
            }
            for addr in local.leases.keys().filter(|addr| !local.disk.contains(**addr)) {
                let entry = entry(world, world.setup.pool_of(network), *addr);
                let slice = matches!(&entry, Some(Entry::Slice(of)) if *of != machine.name);
                let other = slice || entry.as_ref().and_then(Entry::holder).is_some();
                if !other {
                    wrong.push(format!("I8: a lease of n{node} has {addr}, which is {entry:?}"));
                }
            }
        }
    }
    wrong.first().map(|first| format!("{first} ({} such)", wrong.len()))
}
