//! Blocks: the registers of the store. A block is 64 consecutive addresses, and its value maps each address
//! that is not free to one entry, so two holders of one address cannot be written down.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::entry::{Entry, NotAnEntry};
use crate::runs::{address, bits};

/// The number of addresses in a block.
pub const SIZE: u8 = 64;

/// The version of the values that this release writes. It reads no other.
pub const VERSION: u64 = 1;

/// A block's name in its pool: its first address, a multiple of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey(IpAddr);

impl BlockKey {
    /// The block of an address.
    pub fn of(addr: IpAddr) -> BlockKey {
        BlockKey(address(bits(addr) & !u128::from(SIZE - 1), addr))
    }

    /// The block with this first address.
    pub fn starting_at(first: IpAddr) -> Option<BlockKey> {
        Some(BlockKey::of(first)).filter(|key| key.0 == first)
    }

    /// Its first address.
    pub fn first(self) -> IpAddr {
        self.0
    }

    /// The address at an offset below 64.
    pub fn address(self, offset: u8) -> IpAddr {
        address(bits(self.0) | u128::from(offset % SIZE), self.0)
    }

    /// The block behind it. None behind the last of the family.
    pub(crate) fn next(self) -> Option<BlockKey> {
        let most = if self.0.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        let last = bits(self.0) | u128::from(SIZE - 1);
        (last < most).then(|| BlockKey(address(last + 1, self.0)))
    }

    /// The offset of one of its addresses. None if the address is in another block.
    pub fn offset(self, addr: IpAddr) -> Option<u8> {
        (BlockKey::of(addr) == self).then(|| (bits(addr) & u128::from(SIZE - 1)) as u8)
    }

    /// Its addresses.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (0..SIZE).map(move |offset| self.address(offset))
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.0.is_ipv4() { 26 } else { 122 };
        write!(f, "{}/{prefix}", self.0)
    }
}

/// The value of a block. A block that does not exist yet has no entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    entries: BTreeMap<u8, Entry>,
}

/// A value that is no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotABlock {
    /// No JSON object, or one with a missing or wrong key.
    #[error("a block is a JSON object with v and held, and this is {0}")]
    Form(String),
    /// A version of another release.
    #[error("v: {0} is not {VERSION}, the version that this release reads")]
    Version(u64),
    /// A key of `held` that is no offset.
    #[error("held: {0:?} is not an offset from 0 to 63")]
    Offset(String),
    /// A wrong entry.
    #[error("held.{0}: {1}")]
    Entry(u8, NotAnEntry),
}

impl Block {
    /// Reads a value.
    ///
    /// # Errors
    /// Anything that [`Block::to_json`] does not write, apart from spaces and unknown keys.
    pub fn parse(bytes: &[u8]) -> Result<Block, NotABlock> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| NotABlock::Form(error.to_string()))?;
        Block::from_json(&value)
    }

    /// Reads the value's JSON object.
    ///
    /// # Errors
    /// See [`Block::parse`].
    pub fn from_json(value: &Value) -> Result<Block, NotABlock> {
        let form = |what: &str| NotABlock::Form(what.to_owned());
        let version = value.get("v").and_then(Value::as_u64).ok_or_else(|| form("without the number v"))?;
        if version != VERSION {
            return Err(NotABlock::Version(version));
        }
        let held =
            value.get("held").and_then(Value::as_object).ok_or_else(|| form("without the object held"))?;
        let mut block = Block::default();
        for (key, text) in held {
            let offset = key.parse::<u8>().ok().filter(|offset| *offset < SIZE && offset.to_string() == *key);
            let offset = offset.ok_or_else(|| NotABlock::Offset(key.chars().take(20).collect()))?;
            let text = text.as_str().ok_or_else(|| form("with an entry that is no string"))?;
            let entry = Entry::parse(text).map_err(|error| NotABlock::Entry(offset, error))?;
            block.entries.insert(offset, entry);
        }
        Ok(block)
    }

    /// The value as JSON: `{"v": 1, "held": {"16": "g node-07/vlan136#3"}}`.
    pub fn to_json(&self) -> Value {
        let held = self.entries.iter().map(|(offset, entry)| (offset.to_string(), entry.to_string().into()));
        json!({"v": VERSION, "held": held.collect::<Map<String, Value>>()})
    }

    /// The entry of the address at an offset. None if it is free.
    pub fn entry(&self, offset: u8) -> Option<&Entry> {
        self.entries.get(&offset)
    }

    /// Changes the entry of the address at an offset below 64. None makes it free.
    pub fn set(&mut self, offset: u8, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.entries.insert(offset % SIZE, entry),
            None => self.entries.remove(&offset),
        };
    }

    /// The entries with their offsets.
    pub fn entries(&self) -> impl Iterator<Item = (u8, &Entry)> {
        self.entries.iter().map(|(offset, entry)| (*offset, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_one_block_and_one_offset() {
        let key = BlockKey::of(ip("172.20.56.77"));
        assert_eq!((key.to_string(), key.offset(ip("172.20.56.77"))), ("172.20.56.64/26".into(), Some(13)));
        assert_eq!((key.address(13), key.offset(ip("172.20.56.128"))), (ip("172.20.56.77"), None));
        let key = BlockKey::of(ip("2001:db8::ff"));
        assert_eq!((key.to_string(), key.addresses().count()), ("2001:db8::c0/122".into(), 64));
        assert_eq!(BlockKey::starting_at(ip("10.0.0.64")), Some(BlockKey::of(ip("10.0.0.100"))));
        assert_eq!(BlockKey::starting_at(ip("10.0.0.65")), None);
    }

    #[test]
    fn a_value_is_read_as_it_is_written() {
        let mut block = Block::default();
        block.set(0, Some(Entry::parse("g a/n#1").unwrap()));
        block.set(63, Some(Entry::parse("s b/n#2").unwrap()));
        let text = block.to_json().to_string();
        assert_eq!(text, r#"{"held":{"0":"g a/n#1","63":"s b/n#2"},"v":1}"#);
        assert_eq!(Block::parse(text.as_bytes()).unwrap(), block);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| Block::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"v":2,"held":{"0":"?"}}"#),
            "v: 2 is not 1, the version that this release reads"
        );
        assert_eq!(error(r#"{"v":1,"held":{"64":"h a"}}"#), "held: \"64\" is not an offset from 0 to 63");
        assert_eq!(error(r#"{"v":1,"held":{"01":"h a"}}"#), "held: \"01\" is not an offset from 0 to 63");
        assert!(error(r#"{"v":1,"held":{"7":"g a"}}"#).starts_with("held.7: \"g a\" is none of: g HOLDER,"));
        assert!(error("[").contains("EOF") && error("[]").contains("the number v"));
        assert!(error(r#"{"v":1}"#).contains("the object held"));
        assert!(error(r#"{"v":1,"held":{"1":1}}"#).contains("no string"));
    }
}
