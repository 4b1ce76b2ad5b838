//! What the blocks of a pool say, counted as they come, so that a large pool needs no more memory than its
//! nodes.

use std::collections::BTreeMap;

use vlan_bridge_agent::registers::StoreError;
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::entry::Entry;
use vlan_bridge_pool::name::Name;

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) home: u64,
    pub(super) leased: u64,
    /// Addresses that were its own when it was called lost.
    pub(super) suspect: u64,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) nodes: BTreeMap<Name, Holdings>,
    pub(super) home: u64,
    pub(super) leased: u64,
    pub(super) suspect: u64,
    pub(super) reserved: u64,
    /// Addresses with an entry that nodes may claim otherwise.
    used: u128,
    /// What is wrong with the blocks that cannot be read.
    pub(super) unreadable: Vec<String>,
}

/// How an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Home,
    Leased,
    Suspect,
    Reserved,
}

/// The kind of an entry, and the node that it is about.
pub(super) fn kind(entry: &Entry) -> (EntryKind, Option<&Name>) {
    match entry {
        Entry::Home(by) => (EntryKind::Home, Some(&by.node)),
        Entry::Slice(node) => (EntryKind::Home, Some(node)),
        Entry::Granted(by) | Entry::Unproven { by, .. } => (EntryKind::Leased, Some(&by.node)),
        Entry::Suspect { of, .. } => (EntryKind::Suspect, Some(&of.node)),
        Entry::Reserved(_) => (EntryKind::Reserved, None),
    }
}

impl Survey {
    /// Counts a block.
    pub(super) fn add(&mut self, document: &Document, key: BlockKey, read: &Result<Block, StoreError>) {
        let block = match read {
            Ok(block) => block,
            Err(error) => return self.unreadable.push(error.to_string()),
        };
        for (offset, entry) in block.entries() {
            self.used += u128::from(document.contains(key.address(offset)));
            let (kind, node) = kind(entry);
            let held = node.map(|node| self.nodes.entry(node.clone()).or_default());
            let (all, own) = match kind {
                EntryKind::Home => (&mut self.home, held.map(|held| &mut held.home)),
                EntryKind::Leased => (&mut self.leased, held.map(|held| &mut held.leased)),
                EntryKind::Suspect => (&mut self.suspect, held.map(|held| &mut held.suspect)),
                EntryKind::Reserved => (&mut self.reserved, None),
            };
            *all += 1;
            if let Some(own) = own {
                *own += 1;
            }
        }
    }

    /// The addresses that nodes can claim now.
    pub(super) fn free(&self, document: &Document) -> u128 {
        document.addresses().len().saturating_sub(self.used)
    }
}
