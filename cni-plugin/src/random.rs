//! Random Ethernet addresses.

use std::hash::{BuildHasher, Hasher, RandomState};

use cni_conf::cni::mac::MacAddr;

/// A random unicast, locally administered MAC (IEEE 802, bits 1 and 0 of the first octet: 1 and 0). Not
/// derived from the container, whose id need not be unique across the machines of a VLAN.
pub fn mac() -> MacAddr {
    // The standard library seeds each process's hash keys from the kernel and changes them with every state.
    let bits = RandomState::new().build_hasher().finish().to_be_bytes();
    MacAddr([(bits[0] & 0xfc) | 0x02, bits[1], bits[2], bits[3], bits[4], bits[5]])
}
