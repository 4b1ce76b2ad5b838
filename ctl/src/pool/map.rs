//! A picture of a pool: a character for each address, or for each block of a large pool.

use std::collections::BTreeMap;

use vlan_bridge_pool::block::{Block, BlockKey, SIZE};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::name::Name;

use super::survey::{EntryKind, kind};

/// Up to here each address has a character: 64 lines of 64.
const IN_ADDRESSES: u128 = 4096;
/// Up to here each block has one: 256 lines of 64.
const IN_BLOCKS: u128 = 1 << 20;

/// What the characters other than letters mean.
const SIGNS: &str = ". free, ? suspect, = kept for a workload, - excluded, ! unreadable";
const LETTERS: usize = 26;

/// How a pool is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Address,
    Block,
    /// It is too large.
    Nothing,
}

impl Scale {
    pub(super) fn of(document: &Document) -> Scale {
        match document.ranges.len() {
            count if count <= IN_ADDRESSES => Scale::Address,
            count if count <= IN_BLOCKS => Scale::Block,
            _ => Scale::Nothing,
        }
    }
}

/// Draws the blocks of a pool, which come in the order of their addresses. A line goes out as soon as it is
/// full.
#[derive(Debug)]
pub(super) struct Map<'a> {
    document: &'a Document,
    scale: Scale,
    /// The letter of each node, in the order in which they were met. None beyond the last letter.
    letters: BTreeMap<Name, Option<char>>,
    line: String,
}

impl<'a> Map<'a> {
    pub(super) fn new(document: &'a Document) -> Map<'a> {
        Map { document, scale: Scale::of(document), letters: BTreeMap::new(), line: String::new() }
    }

    /// Draws the next block, None if it cannot be read. Returns a line that is full.
    pub(super) fn add(&mut self, key: BlockKey, block: Option<&Block>) -> Option<String> {
        match self.scale {
            Scale::Nothing => None,
            Scale::Address => {
                let line = (0..SIZE).map(|offset| self.address(key, offset, block)).collect::<String>();
                Some(format!("{:<15} {}", key.first(), line.trim_end()))
            }
            Scale::Block => {
                if self.line.is_empty() {
                    self.line = format!("{:<15} ", key.first());
                }
                self.line.push(self.fill(key, block));
                let is_full = self.line.chars().count() >= 16 + usize::from(SIZE);
                is_full.then(|| std::mem::take(&mut self.line))
            }
        }
    }

    /// The last line, which is not full.
    pub(super) fn end(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.line)).filter(|line| !line.is_empty())
    }

    /// What the characters mean.
    pub(super) fn legend(&self) -> Vec<String> {
        match self.scale {
            Scale::Nothing => return vec!["no map: the pool is too large for one".to_owned()],
            Scale::Block => {
                let tenths =
                    "each character is a block of 64 addresses: . free, 0 to 9 tenths in use, # full";
                return vec![format!("{tenths}, ? with suspects, - excluded, ! unreadable")];
            }
            Scale::Address => {}
        }
        let mut named: Vec<_> =
            self.letters.iter().filter_map(|(node, letter)| Some(((*letter)?, node))).collect();
        named.sort();
        let mut lines =
            vec![SIGNS.to_owned(), "a letter is a node, and a capital its home address".to_owned()];
        lines.extend(named.into_iter().map(|(letter, node)| format!("{letter} {node}")));
        if self.letters.values().any(Option::is_none) {
            lines.push("* or +  other nodes: leased or home".to_owned());
        }
        lines
    }

    fn address(&mut self, key: BlockKey, offset: u8, block: Option<&Block>) -> char {
        let addr = key.address(offset);
        if !self.document.ranges.contains(addr) {
            return ' ';
        }
        let Some(block) = block else { return '!' };
        match block.entry(offset).map(kind) {
            None if self.document.exclude.contains(addr) => '-',
            None => '.',
            Some((EntryKind::Suspect, _)) => '?',
            Some((EntryKind::Home, Some(node))) => {
                self.letter(node).map_or('+', |letter| letter.to_ascii_uppercase())
            }
            Some((EntryKind::Leased, Some(node))) => self.letter(node).unwrap_or('*'),
            Some(_) => '=',
        }
    }

    fn letter(&mut self, node: &Name) -> Option<char> {
        let met = self.letters.len();
        let next = ('a'..='z').nth(met).filter(|_| met < LETTERS);
        *self.letters.entry(node.clone()).or_insert(next)
    }

    /// How much of a block is used.
    fn fill(&self, key: BlockKey, block: Option<&Block>) -> char {
        let Some(block) = block else { return '!' };
        let all = key.addresses().filter(|addr| self.document.contains(*addr)).count();
        let of_pool = |(offset, _): &(u8, _)| self.document.contains(key.address(*offset));
        let used = block.entries().filter(of_pool).count();
        match (used, all) {
            (_, 0) => '-',
            _ if block.entries().any(|(_, entry)| kind(entry).0 == EntryKind::Suspect) => '?',
            (0, _) => '.',
            _ if used == all => '#',
            _ => char::from_digit((used * 10 / all) as u32, 10).unwrap_or('#'),
        }
    }
}
