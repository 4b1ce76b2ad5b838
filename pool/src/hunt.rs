//! Which block to try next when a network needs addresses.
//!
//! All who go for the first free block collide there. So a network tries, in this order: blocks in which it
//! saw free addresses, three at random, the store's list of blocks with free addresses, blocks with suspects.
//! When these are used up it knows who holds many, and asks them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::block::{Block, BlockKey, SIZE};
use crate::entry::Entry;
use crate::name::Name;
use crate::plan::{Lost, Me};
use crate::runs::{Runs, address, bits};

/// How many blocks are tried at random.
const AT_RANDOM: u8 = 3;

/// How many blocks are remembered.
const MEMORY: usize = 256;

/// What to try next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A block. `suspects`: no free address was found elsewhere.
    Try {
        /// The block.
        block: BlockKey,
        /// Whether suspects may be claimed.
        suspects: bool,
    },
    /// Ask the store for blocks with free addresses.
    List,
    /// Nothing is left to try.
    Nothing,
}

/// What was seen of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    addresses: u8,
    free: u8,
    suspects: u8,
    holders: BTreeMap<Name, Held>,
}

/// What a node holds in a block. Networks of a node count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// Addresses.
    count: u8,
    /// The earliest epoch under which one of them is leased, and under which one is at home.
    leased: Option<u32>,
    home: Option<u32>,
}

impl Held {
    /// Whether some of this is lost.
    fn is_lost(self, lost: &Lost) -> bool {
        let until = |earliest: Option<u32>, last: u32| earliest.is_some_and(|epoch| epoch <= last);
        until(self.leased, lost.epoch) || until(self.home, lost.gone)
    }
}

/// The memory of blocks, and how far the hunt under way has come.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The pool's addresses that may be given.
    range: Runs,
    seen: BTreeMap<BlockKey, Seen>,
    tried: BTreeSet<BlockKey>,
    tried_suspects: BTreeSet<BlockKey>,
    at_random: u8,
    listed: bool,
}

impl Hunt {
    /// A hunt in the pool's addresses: its ranges without what is excluded.
    pub fn new(range: Runs) -> Hunt {
        let (seen, tried) = (BTreeMap::new(), BTreeSet::new());
        Hunt { range, seen, tried_suspects: tried.clone(), tried, at_random: 0, listed: false }
    }

    /// Begins again: nothing is tried yet. What was seen is kept.
    pub fn begin(&mut self) {
        self.tried.clear();
        self.tried_suspects.clear();
        (self.at_random, self.listed) = (0, false);
    }

    /// The addresses of a block that the pool has.
    pub fn addresses(&self, block: BlockKey) -> Runs {
        block.addresses().filter(|addr| self.range.contains(*addr)).collect()
    }

    /// Takes note of a block's value, which `me` looks at.
    pub fn saw(&mut self, key: BlockKey, block: &Block, me: &Me) {
        let mut seen = Seen::default();
        for (offset, _) in key.addresses().enumerate().filter(|(_, addr)| self.range.contains(*addr)) {
            seen.addresses += 1;
            match block.entry(offset as u8) {
                None => seen.free += 1,
                Some(Entry::Suspect { .. }) => seen.suspects += 1,
                Some(entry) => {
                    let Some(by) = entry.holder().filter(|holder| !me.is(holder)) else { continue };
                    let nothing = Held { count: 0, leased: None, home: None };
                    let held = seen.holders.entry(by.node.clone()).or_insert(nothing);
                    held.count += 1;
                    let is_home = matches!(entry, Entry::Home(_));
                    let earliest = if is_home { &mut held.home } else { &mut held.leased };
                    *earliest = Some(earliest.map_or(by.epoch, |epoch| epoch.min(by.epoch)));
                }
            }
        }
        self.remember(key, seen);
    }

    fn remember(&mut self, key: BlockKey, seen: Seen) {
        if self.seen.len() >= MEMORY && !self.seen.contains_key(&key) {
            let useless = |(_, seen): &(&BlockKey, &Seen)| (seen.free > 0, seen.suspects > 0);
            let least = self.seen.iter().min_by_key(useless).map(|(block, _)| *block);
            least.map(|block| self.seen.remove(&block));
        }
        self.seen.insert(key, seen);
    }

    /// Takes note of the store's list of blocks with free addresses. It may be old.
    pub fn listed(&mut self, blocks: impl IntoIterator<Item = BlockKey>) {
        let of_this_pool: Vec<_> = blocks.into_iter().take(MEMORY).filter(|block| self.has(*block)).collect();
        for block in of_this_pool {
            let mut seen = self.seen.get(&block).cloned().unwrap_or_default();
            seen.free = seen.free.max(1);
            self.remember(block, seen);
            self.tried.remove(&block);
        }
    }

    /// What to try next. `random` is a random number.
    pub fn next(&mut self, random: u64) -> Next {
        let untried = |seen: &BTreeMap<BlockKey, Seen>, tried: &BTreeSet<BlockKey>, kind: fn(&Seen) -> u8| {
            let mut found: Vec<BlockKey> = seen
                .iter()
                .filter(|(block, seen)| kind(seen) > 0 && !tried.contains(block))
                .map(|(block, _)| *block)
                .collect();
            let count = found.len();
            (count > 0).then(|| found.swap_remove((random % count as u64) as usize))
        };
        if let Some(block) = untried(&self.seen, &self.tried, |seen| seen.free) {
            self.tried.insert(block);
            return Next::Try { block, suspects: false };
        }
        while self.at_random < AT_RANDOM {
            let mixed = random.rotate_left(u32::from(self.at_random) * 21 + 1);
            self.at_random += 1;
            if let Some(block) = self.block_at(mixed).filter(|block| self.tried.insert(*block)) {
                return Next::Try { block, suspects: false };
            }
        }
        if !self.listed {
            self.listed = true;
            return Next::List;
        }
        if let Some(block) = untried(&self.seen, &self.tried_suspects, |seen| seen.suspects) {
            self.tried_suspects.insert(block);
            return Next::Try { block, suspects: true };
        }
        Next::Nothing
    }

    /// Nodes that hold addresses where this network looked, with their number, those with most first. Its own
    /// node is among them if another network of it holds some.
    pub fn holders(&self) -> Vec<(Name, u32)> {
        let mut holders: BTreeMap<&Name, u32> = BTreeMap::new();
        for (node, held) in self.seen.values().flat_map(|seen| &seen.holders) {
            *holders.entry(node).or_default() += u32::from(held.count);
        }
        let mut holders: Vec<_> = holders.into_iter().map(|(node, sum)| (node.clone(), sum)).collect();
        holders.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        holders
    }

    /// The number of addresses in the blocks that were seen, and how many of them are not free.
    pub fn sums(&self) -> (u32, u32) {
        let sum = |of: fn(&Seen) -> u8| self.seen.values().map(|seen| u32::from(of(seen))).sum();
        (sum(|seen| seen.addresses), sum(|seen| seen.addresses.saturating_sub(seen.free)))
    }

    /// The earliest epoch under which a node was seen to hold an address.
    pub fn earliest(&self, node: &Name) -> Option<u32> {
        let held = self.seen.values().filter_map(|seen| seen.holders.get(node));
        held.flat_map(|held| held.leased.into_iter().chain(held.home)).min()
    }

    /// The first block behind this one in which a lost node was seen to hold addresses that others may take.
    pub fn block_of(&self, lost: &Lost, behind: Option<BlockKey>) -> Option<BlockKey> {
        let holds = |seen: &Seen| seen.holders.get(&lost.node).is_some_and(|held| held.is_lost(lost));
        let mut blocks = self.seen.iter().filter(|(block, _)| behind.is_none_or(|behind| **block > behind));
        blocks.find(|(_, seen)| holds(seen)).map(|(block, _)| *block)
    }

    fn has(&self, block: BlockKey) -> bool {
        block.addresses().any(|addr| self.range.contains(addr))
    }

    /// The block of the pool with this number, counted around.
    fn block_at(&self, number: u64) -> Option<BlockKey> {
        let index = |addr: IpAddr| bits(addr) / u128::from(SIZE);
        let count = |(first, last): (IpAddr, IpAddr)| index(last) - index(first) + 1;
        let all = self.range.iter_runs().map(count).fold(0_u128, u128::saturating_add);
        let mut at = (all > 0).then(|| u128::from(number) % all)?;
        for run in self.range.iter_runs() {
            if at < count(run) {
                return Some(BlockKey::of(address((index(run.0) + at) * u128::from(SIZE), run.0)));
            }
            at -= count(run);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(texts: &[&str]) -> Runs {
        let mut runs = Runs::EMPTY;
        texts.iter().for_each(|text| runs.insert_text(text).unwrap());
        runs
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn value(entries: &[(u8, &str)]) -> Block {
        let mut block = Block::default();
        entries.iter().for_each(|(offset, text)| block.set(*offset, Some(Entry::parse(text).unwrap())));
        block
    }

    #[test]
    fn free_blocks_come_first_then_chance_then_the_list_then_suspects() {
        let mut hunt = Hunt::new(range(&["10.0.0.0-10.0.0.255"]));
        let key = |last: u8| BlockKey::of([10, 0, 0, last].into());
        let full: Vec<(u8, &str)> = (0..64).map(|offset| (offset, "g b/n#1")).collect();
        let me = Me { node: name("a"), network: name("n"), epoch: 3, since: 2 };
        hunt.saw(key(0), &value(&full), &me);
        hunt.saw(key(64), &value(&full[1..]), &me);
        let mut suspect = full.clone();
        suspect[9] = (9, "s c/n#1");
        hunt.saw(key(128), &value(&suspect), &me);
        hunt.begin();
        assert_eq!(hunt.next(5), Next::Try { block: key(64), suspects: false });
        let mut rest = Vec::new();
        while rest.last() != Some(&Next::Nothing) {
            rest.push(hunt.next(7));
        }
        let list = rest.iter().position(|next| *next == Next::List).unwrap();
        assert!(
            list <= 3 && rest[list + 1..] == [Next::Try { block: key(128), suspects: true }, Next::Nothing]
        );
        hunt.listed([key(192), BlockKey::of([10, 1, 0, 0].into())]);
        assert_eq!(hunt.next(1), Next::Try { block: key(192), suspects: false });
        assert_eq!(hunt.next(1), Next::Nothing, "what is no block of the pool is not tried");
        assert_eq!(hunt.holders(), [(name("b"), 63 + 63 + 64)]);
    }

    #[test]
    fn blocks_of_a_lost_node_are_those_in_which_others_may_take_something() {
        let mut hunt = Hunt::new(range(&["10.0.0.0-10.0.0.255"]));
        let key = |last: u8| BlockKey::of([10, 0, 0, last].into());
        let me = Me { node: name("a"), network: name("n"), epoch: 3, since: 2 };
        hunt.saw(key(0), &value(&[(0, "h b/n#1"), (1, "g a/n#2"), (2, "g a/n#1")]), &me);
        hunt.saw(key(64), &value(&[(0, "g b/n#2"), (1, "g b/old#1")]), &me);
        assert_eq!((hunt.earliest(&name("b")), hunt.earliest(&name("c"))), (Some(1), None));
        let lost = |node: &str, epoch: u32, gone: u32| Lost { node: name(node), epoch, gone };
        assert_eq!(hunt.block_of(&lost("b", 1, 0), None), Some(key(64)), "a home address is not lost");
        assert_eq!(hunt.block_of(&lost("b", 1, 1), None), Some(key(0)));
        assert_eq!(hunt.block_of(&lost("b", 0, 0), None), None);
        assert_eq!(hunt.block_of(&lost("b", 1, 1), Some(key(0))), Some(key(64)));
        assert_eq!(
            hunt.block_of(&lost("a", 1, 0), None),
            Some(key(0)),
            "another machine had this node's name"
        );
    }

    #[test]
    fn chance_finds_every_block_and_no_other() {
        let hunt = Hunt::new(range(&["10.0.0.10-10.0.0.70", "10.0.9.0", "2001:db8::-2001:db8::3f"]));
        let found: BTreeSet<String> =
            (0..100).map(|number| hunt.block_at(number).unwrap().to_string()).collect();
        let all = ["10.0.0.0/26", "10.0.0.64/26", "10.0.9.0/26", "2001:db8::/122"];
        assert!(found.iter().eq(&all), "{found:?}");
        assert_eq!(Hunt::new(Runs::EMPTY).block_at(1), None);
    }
}
