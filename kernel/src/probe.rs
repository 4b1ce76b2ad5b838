//! Frames that probe for an address or announce it, and the claims in received frames. Nothing here does I/O.
//!
//! IPv4: ARP probes and conflicts according to RFC 5227 section 2.1. IPv6: the neighbour solicitations of
//! duplicate address detection and their answers, RFC 4862 section 5.4. Both have the unspecified address as
//! their sender (0.0.0.0 and ::), so neighbour caches do not change.

use std::net::{IpAddr, Ipv6Addr};

use cni_conf::cni::mac::MacAddr;

pub(crate) mod arp;
pub(crate) mod ndisc;

/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Length of the Ethernet header: destination, source and EtherType.
pub(crate) const ETHERNET: usize = 14;

/// The EtherType of answers about an address.
pub fn ethertype(addr: IpAddr) -> u16 {
    if addr.is_ipv4() { ARP } else { IPV6 }
}

/// The whole frame that probes for an address.
pub fn question(addr: IpAddr, own: MacAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => arp::probe(addr, own),
        IpAddr::V6(addr) => ndisc::solicitation(addr, own),
    }
}

/// The whole frame by which a MAC announces that it has an address, or defends it (RFC 5227 sections 2.3 and
/// 2.4, RFC 4861 section 7.2.6).
pub fn announcement(addr: IpAddr, own: MacAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => arp::announcement(addr, own),
        IpAddr::V6(addr) => ndisc::announcement(addr, own),
    }
}

/// A frame's claim to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub addr: IpAddr,
    /// The MAC that claims it.
    pub mac: MacAddr,
    /// Whether it uses the address or probes for it.
    pub stance: Stance,
}

/// The kind of claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// The sender has the address.
    Uses,
    /// The sender probes for the address before it uses it. Any host can probe for any address.
    Probes,
}

/// The claim in a frame. None if the frame has no claim, or if it is a copy of a frame from `own`.
pub fn claim(frame: &[u8], own: MacAddr) -> Option<Claim> {
    let (header, payload) = frame.split_at_checked(ETHERNET)?;
    let from = MacAddr(header[6..12].try_into().ok()?);
    let claim = match u16::from_be_bytes([header[12], header[13]]) {
        ARP => arp::claim(payload)?,
        IPV6 => ndisc::claim(payload, from)?,
        _ => return None,
    };
    (from != own && claim.mac != own).then_some(claim)
}

/// Inserts an 802.1q tag after the addresses of the frame.
pub fn tagged(mut frame: Vec<u8>, tag: Option<u16>) -> Vec<u8> {
    const ADDRESSES: usize = 12;
    if let Some(tag) = tag {
        let [high, low] = tag.to_be_bytes();
        frame.splice(ADDRESSES..ADDRESSES, [0x81, 0x00, high, low]);
    }
    frame
}

fn ethernet(to: [u8; 6], from: MacAddr, ethertype: u16) -> Vec<u8> {
    [&to[..], &from.0, &ethertype.to_be_bytes()].concat()
}

/// The Ethernet address of a multicast group (RFC 2464 section 7).
fn multicast(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_probe_of_another_host_is_a_claim_and_our_own_is_not() {
        for addr in ["10.0.0.5", "2001:db8::5"] {
            let addr: IpAddr = addr.parse().unwrap();
            let expected = Claim { addr, mac: OTHER, stance: Stance::Probes };
            assert_eq!(claim(&question(addr, OTHER), OWN), Some(expected));
            assert_eq!(claim(&question(addr, OWN), OWN), None);
        }
    }

    #[test]
    fn truncated_and_other_frames_claim_nothing() {
        for addr in ["10.0.0.5", "2001:db8::5"] {
            let whole = question(addr.parse().unwrap(), OTHER);
            let shortest = if addr.contains(':') { 78 } else { 42 };
            for end in 0..shortest {
                assert_eq!(claim(&whole[..end], OWN), None, "{end}");
            }
            let mut other = whole;
            other[12] = 0x88;
            assert_eq!(claim(&other, OWN), None);
        }
    }

    #[test]
    fn a_tag_follows_the_addresses() {
        let frame: Vec<u8> = (0..14).collect();
        assert_eq!(tagged(frame.clone(), None), frame);
        assert_eq!(tagged(frame, Some(136))[10..], [10, 11, 0x81, 0, 0, 136, 12, 13]);
    }

    #[test]
    fn an_announcement_is_a_claim_of_its_sender() {
        for addr in ["10.0.0.5", "2001:db8::5"] {
            let addr: IpAddr = addr.parse().unwrap();
            let expected = Claim { addr, mac: OTHER, stance: Stance::Uses };
            assert_eq!(claim(&announcement(addr, OTHER), OWN), Some(expected));
        }
    }
}
