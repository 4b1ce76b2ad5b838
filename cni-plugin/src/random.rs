//! Random Ethernet addresses.

use cni_conf::cni::mac::MacAddr;
use kernel::NetError;

/// A random unicast, locally administered MAC (IEEE 802, bits 1 and 0 of the first octet: 1 and 0). Not
/// derived from the container, whose id need not be unique across the machines of a VLAN.
pub fn mac() -> Result<MacAddr, NetError> {
    let mut bytes: [u8; 6] = kernel::random().map_err(|e| NetError::io("make a random MAC", &e))?;
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    Ok(MacAddr(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn random_macs_are_unicast_and_local_and_differ() {
        let macs: BTreeSet<[u8; 6]> = (0..100).map(|_| mac().unwrap().0).collect();
        assert_eq!(macs.len(), 100);
        assert!(macs.iter().all(|mac| mac[0] & 0x03 == 0x02));
        assert!((0..6).all(|at| macs.iter().any(|mac| mac[at] != macs.first().unwrap()[at])));
    }
}
