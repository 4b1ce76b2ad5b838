//! Where in a pool a block lies, and whether it has free addresses.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;

/// A number at random, to spread nodes over blocks and endpoints. Nothing else depends on it.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Whether a node may claim an address of the block.
pub(super) fn has_free(document: &Document, block: BlockKey, value: &Block) -> bool {
    document.addresses_of(block).iter().any(|addr| {
        let entry = block.offset(addr).and_then(|offset| value.entry(offset));
        entry.is_none()
    })
}

/// Whether the pool has addresses in the block.
pub(super) fn is_in(document: &Document, block: BlockKey) -> bool {
    !document.addresses_of(block).is_empty()
}

/// The block of the pool's address with this number, counted around. None if all are excluded.
pub(super) fn nth(document: &Document, number: u64) -> Option<BlockKey> {
    let addresses = document.addresses();
    let mut left = u128::from(number).checked_rem(addresses.len())?;
    for (first, last) in addresses.iter_runs() {
        let (from, to) = (bits(first), bits(last));
        if left <= to - from {
            return Some(BlockKey::of(like(first, from + left)));
        }
        left -= to - from + 1;
    }
    None
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn like(addr: IpAddr, bits: u128) -> IpAddr {
    match addr {
        // Only sums within a run come here.
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use vlan_bridge_pool::entry::Entry;

    use super::*;

    fn document(ranges: &str, exclude: &str) -> Document {
        let text = format!(
            concat!(
                r#"{{"v":1,"id":"00112233445566778899aabbccddeeff","ranges":[{}],"exclude":[{}],"#,
                r#""reclaim":"operator","lostAfter":1800,"margin":300,"state":"open"}}"#
            ),
            ranges, exclude
        );
        Document::parse(text.as_bytes()).unwrap()
    }

    fn block(addr: &str) -> BlockKey {
        BlockKey::of(addr.parse().unwrap())
    }

    #[test]
    fn each_address_is_as_likely() {
        let document = document(r#""10.0.0.0/25","10.0.9.0-10.0.9.63""#, r#""10.0.0.0-10.0.0.3""#);
        let count =
            |first: &str| (0..188).filter(|number| nth(&document, *number) == Some(block(first))).count();
        assert_eq!(["10.0.0.0", "10.0.0.64", "10.0.9.0"].map(count), [60, 64, 64]);
        assert_eq!(nth(&document, 188), Some(block("10.0.0.0")));
        let v6 = self::document(r#""2001:db8::/64""#, "");
        assert_eq!(nth(&v6, u64::MAX), Some(block("2001:db8::ffff:ffff:ffff:ffff")));
        assert_eq!(nth(&self::document(r#""10.0.0.0/30""#, r#""10.0.0.0/30""#), 7), None);
    }

    #[test]
    fn what_is_excluded_is_not_free() {
        let document = document(r#""10.0.0.0/25""#, r#""10.0.0.0-10.0.0.62","10.0.0.64/26""#);
        let mut value = Block::default();
        assert!(has_free(&document, block("10.0.0.0"), &value) && is_in(&document, block("10.0.0.0")));
        value.set(63, Some(Entry::parse("g a/n#1").unwrap()));
        assert!(!has_free(&document, block("10.0.0.0"), &value));
        for outside in ["10.0.0.64", "10.0.1.0", "::"] {
            assert!(!has_free(&document, block(outside), &value) && !is_in(&document, block(outside)));
        }
    }
}
