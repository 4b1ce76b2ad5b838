//! The store: registers with versions and compare-and-swap, applied one after another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::register::Register;
use vlan_bridge_pool::version::{Swap, Version};

/// A block of a pool.
pub(crate) type Key = (usize, BlockKey);

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) revision: u64,
    /// Goes up when a backup takes its place.
    pub(crate) cluster: u64,
    /// The document of each pool.
    pub(crate) documents: Vec<Document>,
    pub(crate) blocks: BTreeMap<Key, (u64, Block)>,
    pub(crate) registers: BTreeMap<Name, (u64, Register)>,
    /// Blocks with free addresses. It is also a block that nobody has written yet.
    pub(crate) free: BTreeSet<Key>,
    /// Blocks whose values no agent can read.
    pub(crate) unreadable: BTreeSet<Key>,
    /// Nobody gets an answer before this time.
    pub(crate) away_until: Duration,
    pub(crate) requests: u64,
}

fn version(revision: Option<u64>) -> Version {
    revision.map_or(Version::ABSENT, |revision| Version::new(&revision.to_string()))
}

impl Store {
    pub(crate) fn block(&self, key: Key) -> (Version, Block) {
        let found = self.blocks.get(&key);
        (version(found.map(|(at, _)| *at)), found.map(|(_, block)| block.clone()).unwrap_or_default())
    }

    pub(crate) fn register(&self, node: &Name) -> (Version, Option<Register>) {
        let found = self.registers.get(node);
        (version(found.map(|(at, _)| *at)), found.map(|(_, register)| register.clone()))
    }

    /// Writes a block. The value before is returned too if it was written.
    pub(crate) fn swap_block(
        &mut self,
        key: Key,
        at: &Version,
        value: Block,
        has_free: bool,
    ) -> (Swap<Block>, Option<Block>) {
        let (now, before) = self.block(key);
        if now != *at {
            return (Swap::Lost(now, before), None);
        }
        self.revision += 1;
        if has_free {
            self.free.insert(key)
        } else {
            self.free.remove(&key)
        };
        self.blocks.insert(key, (self.revision, value));
        (Swap::Done(version(Some(self.revision))), Some(before))
    }

    pub(crate) fn swap_register(
        &mut self,
        node: &Name,
        at: &Version,
        value: Register,
    ) -> Swap<Option<Register>> {
        let (now, before) = self.register(node);
        if now != *at {
            return Swap::Lost(now, before);
        }
        self.put_register(node, value);
        Swap::Done(version(Some(self.revision)))
    }

    /// Writes a pool's document.
    pub(crate) fn put_document(&mut self, pool: usize, document: Document) {
        self.revision += 1;
        self.documents[pool] = document;
    }

    /// Writes a register, whatever it was.
    pub(crate) fn put_register(&mut self, node: &Name, value: Register) {
        self.revision += 1;
        self.registers.insert(node.clone(), (self.revision, value));
    }
}
