//! The frames that ask whether somebody uses an address, and what the frames that are heard say. Pure.
//!
//! IPv4: ARP probes and conflicts as RFC 5227 section 2.1 has them. IPv6: the neighbour solicitations of
//! duplicate address detection and what answers them, RFC 4862 section 5.4. Both are sent in nobody's name
//! (0.0.0.0 and ::), so that no neighbour's cache changes.

use std::net::{IpAddr, Ipv6Addr};

use cni_conf::cni::mac::MacAddr;

mod arp;
mod ndisc;

/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Destination, source and EtherType.
const ETHERNET: usize = 14;

/// Which EtherType answers about an address come in.
pub fn ethertype(addr: IpAddr) -> u16 {
    if addr.is_ipv4() { ARP } else { IPV6 }
}

/// The whole frame that asks for an address.
pub fn question(addr: IpAddr, own: MacAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => arp::probe(addr, own),
        IpAddr::V6(addr) => ndisc::solicitation(addr, own),
    }
}

/// What a frame says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub addr: IpAddr,
    /// Who says so.
    pub mac: MacAddr,
    /// Whether that one has the address.
    pub stance: Stance,
}

/// Whether somebody has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It is the sender's.
    Uses,
    /// The sender asks whether anybody has it, in order to take it. Anybody can ask that of any address.
    Probes,
}

/// Who a frame says uses which address, or is about to: none for one that says neither, and for our own come
/// back.
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
    fn anothers_question_is_a_claim_and_ours_is_none() {
        for addr in ["10.0.0.5", "2001:db8::5"] {
            let addr: IpAddr = addr.parse().unwrap();
            let expected = Claim { addr, mac: OTHER, stance: Stance::Probes };
            assert_eq!(claim(&question(addr, OTHER), OWN), Some(expected));
            assert_eq!(claim(&question(addr, OWN), OWN), None);
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_claims_nothing() {
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
}
