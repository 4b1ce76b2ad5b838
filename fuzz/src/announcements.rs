//! Whatever comes from a netlink socket.

use kernel::monitor::{Subsystem, read};
use std::collections::VecDeque;

/// The shortest message.
const HEADER: usize = 16;

/// The first byte says from which subsystem the rest is a datagram. It announces no more than it has
/// messages.
pub fn announcements(input: &[u8]) {
    let Some((subsystem, datagram)) = input.split_first() else { return };
    let subsystem = if subsystem % 2 == 0 { Subsystem::Route } else { Subsystem::Netfilter };
    let mut announced = VecDeque::new();
    read(subsystem, datagram, &mut announced);
    assert!(announced.len() <= datagram.len() / HEADER, "{announced:?}");
}
