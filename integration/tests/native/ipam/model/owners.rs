//! The addresses and the attachments of a sequence by their numbers, and how files name them.

use super::OWNERS;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The number of addresses in both sets.
pub(super) const ADDRESSES: usize = 11;
/// 10.1.0.2 and so on, then 2001:db8::2.
pub(super) const V4: usize = 5;

pub(super) fn address(number: usize) -> IpAddr {
    let text = match number.checked_sub(V4) {
        None => format!("10.1.0.{}", 2 + number),
        Some(number) => format!("2001:db8::{:x}", 2 + number),
    };
    text.parse().unwrap()
}

pub(super) fn sets() -> [BTreeSet<IpAddr>; 2] {
    [(0..V4).map(address).collect(), (V4..ADDRESSES).map(address).collect()]
}

/// Two owners of one container share its ID.
pub(super) fn names(owner: u8) -> (String, &'static str) {
    (format!("c{}", owner / 2), if owner.is_multiple_of(2) { "eth0" } else { "net1" })
}

pub(super) fn lease(owner: u8) -> String {
    let (id, ifname) = names(owner);
    format!("{id}\r\n{ifname}")
}

pub(super) fn record(owner: u8) -> String {
    let (id, ifname) = names(owner);
    format!("{id}:{ifname}")
}

pub(super) fn number(content: &str, written: impl Fn(u8) -> String) -> Option<u8> {
    (0..OWNERS).find(|owner| written(*owner) == content)
}
