//! The keys in etcd, and the values as they are read from them.
//!
//! | key after the prefix | value |
//! |---|---|
//! | `/p/POOL` | the pool's document |
//! | `/b/POOL/HEX` | a block; HEX is its first address in 8 or 32 digits |
//! | `/f/POOL/HEX` | empty: the block has a free address |
//! | `/n/NODE` | a node's register |
//! | `/w/NODE/POOL` | another node asks NODE for addresses |

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use vlan_bridge_pool::block::BlockKey;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;
use vlan_bridge_pool::version::Version;

use super::error::StoreError;
use super::messages::KeyValue;

/// The keys below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn below(prefix: &str) -> Keys {
        Keys { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// All documents begin so.
    pub(super) fn documents(&self) -> String {
        format!("{}/p/", self.prefix)
    }

    pub(super) fn document(&self, pool: &Name) -> String {
        format!("{}/p/{pool}", self.prefix)
    }

    /// All blocks of a pool begin so.
    pub(super) fn blocks(&self, pool: &Name) -> String {
        format!("{}/b/{pool}/", self.prefix)
    }

    pub(super) fn block(&self, pool: &Name, block: BlockKey) -> String {
        self.blocks(pool) + &hex(block)
    }

    /// All marks of blocks with a free address begin so.
    pub(super) fn marks(&self, pool: &Name) -> String {
        format!("{}/f/{pool}/", self.prefix)
    }

    pub(super) fn mark(&self, pool: &Name, block: BlockKey) -> String {
        self.marks(pool) + &hex(block)
    }

    pub(super) fn register(&self, node: &Name) -> String {
        format!("{}/n/{node}", self.prefix)
    }

    /// All that a node is asked begins so.
    pub(super) fn recalls(&self, node: &Name) -> String {
        format!("{}/w/{node}/", self.prefix)
    }

    pub(super) fn recall(&self, node: &Name, pool: &Name) -> String {
        format!("{}/w/{node}/{pool}", self.prefix)
    }
}

/// The first key behind all that begin so. They end in a slash.
pub(super) fn behind(beginning: &str) -> Vec<u8> {
    let mut end = beginning.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// What a key names behind its beginning.
pub(super) fn name_of(key: &[u8], beginning: &str) -> Option<Name> {
    let rest = key.strip_prefix(beginning.as_bytes())?;
    Name::new(std::str::from_utf8(rest).ok()?).ok()
}

/// The block that a key names behind its beginning.
pub(super) fn block_of(key: &[u8], beginning: &str) -> Option<BlockKey> {
    let hex = std::str::from_utf8(key.strip_prefix(beginning.as_bytes())?).ok()?;
    let first = match hex.len() {
        8 => IpAddr::from(Ipv4Addr::from_bits(u32::from_str_radix(hex, 16).ok()?)),
        32 => IpAddr::from(Ipv6Addr::from_bits(u128::from_str_radix(hex, 16).ok()?)),
        _ => return None,
    };
    BlockKey::starting_at(first).filter(|block| self::hex(*block) == hex)
}

fn hex(block: BlockKey) -> String {
    match block.first() {
        IpAddr::V4(first) => format!("{:08x}", first.to_bits()),
        IpAddr::V6(first) => format!("{:032x}", first.to_bits()),
    }
}

pub(super) fn version_of(kv: &KeyValue) -> Version {
    Version::new(&kv.mod_revision.to_string())
}

/// What etcd compares for a version. A key that does not exist has 0.
pub(super) fn revision_of(version: &Version) -> Option<i64> {
    match version.as_str() {
        None => Some(0),
        Some(text) => text.parse().ok().filter(|revision| *revision > 0),
    }
}

/// Reads a value with its version.
pub(super) fn read<T, E: Display>(
    kv: &KeyValue,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<(Version, T), StoreError> {
    let value = parse(&kv.value).map_err(|cause| unreadable(&kv.key, cause))?;
    Ok((version_of(kv), value))
}

pub(super) fn unreadable(key: &[u8], cause: impl Display) -> StoreError {
    StoreError::Unreadable { key: String::from_utf8_lossy(key).into_owned(), cause: cause.to_string() }
}

/// `{"v": 1, "count": 8, "floor": 2}`, and `"address": "172.20.56.77"` if it is about that one.
pub(super) fn recall_to_json(recall: &Recall) -> Value {
    let mut value = json!({"v": 1, "count": recall.count, "floor": recall.floor});
    if let Some(addr) = recall.address {
        value["address"] = addr.to_string().into();
    }
    value
}

pub(super) fn parse_recall(bytes: &[u8]) -> Result<Recall, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let number = |key: &str| {
        let number = value.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| format!("{key} is not a number below 2^32"))
    };
    let version = number("v")?;
    if version != 1 {
        return Err(format!("v: {version} is not 1, the version that this release reads"));
    }
    let read = |addr: &Value| addr.as_str().and_then(|addr| addr.parse().ok());
    let address = value.get("address").map(|addr| read(addr).ok_or_else(|| format!("{addr} is no address")));
    Ok(Recall { count: number("count")?, floor: number("floor")?, address: address.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first: &str) -> BlockKey {
        BlockKey::starting_at(first.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_block_is_found_again_in_its_key() {
        let (keys, pool) = (Keys::below("/a/"), Name::new("p").unwrap());
        for first in ["172.20.56.64", "0.0.0.0", "2001:db8::40", "::"] {
            let key = keys.block(&pool, block(first));
            assert_eq!(block_of(key.as_bytes(), &keys.blocks(&pool)), Some(block(first)), "{key}");
        }
        assert_eq!(keys.block(&pool, block("172.20.56.64")), "/a/b/p/ac143840");
        for other in ["ac143841", "AC143840", "+c143840", "ac14384", "", "ac143840/"] {
            assert_eq!(block_of(format!("/a/b/p/{other}").as_bytes(), "/a/b/p/"), None, "{other}");
        }
    }

    #[test]
    fn the_keys_of_one_pool_are_no_others() {
        let (keys, pool) = (Keys::below("/a"), Name::new("p").unwrap());
        let (from, to) = (keys.blocks(&pool).into_bytes(), behind(&keys.blocks(&pool)));
        let within = |pool: &str| {
            let key = keys.block(&Name::new(pool).unwrap(), block("255.255.255.192")).into_bytes();
            from <= key && key < to
        };
        assert!(within("p"));
        for other in ["p1", "p.1", "p-1", "P", "o", "q"] {
            assert!(!within(other), "{other}");
        }
    }

    #[test]
    fn a_recall_is_read_as_it_is_written() {
        for address in [None, "172.20.56.77".parse().ok()] {
            let recall = Recall { count: 8, floor: 2, address };
            assert_eq!(parse_recall(recall_to_json(&recall).to_string().as_bytes()), Ok(recall));
        }
        let wrong = r#"{"v":1,"count":1,"floor":1,"address":1}"#;
        for other in ["", "{}", r#"{"v":2,"count":1,"floor":1}"#, r#"{"v":1,"count":-1,"floor":1}"#, wrong] {
            assert!(parse_recall(other.as_bytes()).is_err(), "{other}");
        }
    }
}
