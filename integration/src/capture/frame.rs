//! Ethernet frames, as far as the tests look into them.

use crate::mac_bytes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IEEE 802 local experimental EtherType 1. No other program uses it here.
const MARKER: u16 = 0x88b5;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGGED: [u16; 2] = [0x8100, 0x88a8];

/// A frame with its VLAN tags, outermost first, wherever the kernel kept them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// VLAN ids, outermost first; none for an untagged frame.
    pub vlans: Vec<u16>,
    /// The ethertype after all tags.
    pub ethertype: u16,
    /// The bytes after the EtherType.
    pub payload: Vec<u8>,
    /// Whether this side of the interface sent it.
    pub outgoing: bool,
}

impl Frame {
    /// Reads a frame. `stripped` is the tag that the kernel removed and passed separately.
    pub(super) fn parse(bytes: &[u8], stripped: Option<u16>, outgoing: bool) -> Option<Frame> {
        let (addresses, mut rest) = bytes.split_at_checked(12)?;
        let mut vlans: Vec<u16> = stripped.into_iter().map(id).collect();
        let mut ethertype = take_u16(&mut rest)?;
        while TAGGED.contains(&ethertype) {
            vlans.push(id(take_u16(&mut rest)?));
            ethertype = take_u16(&mut rest)?;
        }
        Some(Frame {
            destination: addresses[..6].try_into().ok()?,
            source: addresses[6..].try_into().ok()?,
            vlans,
            ethertype,
            payload: rest.to_vec(),
            outgoing,
        })
    }

    /// Whether it is an ARP packet.
    pub fn is_arp(&self) -> bool {
        self.ethertype == ARP
    }

    /// Sender and target addresses of an IPv4 ARP packet.
    pub fn arp(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        if !self.is_arp() {
            return None;
        }
        Some((self.address_at(14)?, self.address_at(24)?))
    }

    /// The address that an ARP probe asks for (RFC 5227 section 1.1): a request without a sender address.
    pub fn arp_probe(&self) -> Option<Ipv4Addr> {
        let (sender, target) = self.arp()?;
        (sender.is_unspecified() && self.payload[6..8] == [0, 1]).then_some(target)
    }

    /// The address that duplicate address detection asks for (RFC 4862 section 5.4): a solicitation without a
    /// source address.
    pub fn detection(&self) -> Option<Ipv6Addr> {
        let address = |start: usize| {
            let bytes: [u8; 16] = self.payload.get(start..start + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes))
        };
        let solicits = self.ethertype == IPV6 && self.payload.get(40) == Some(&135);
        (solicits && address(8)?.is_unspecified()).then(|| address(48)).flatten()
    }

    /// Source and destination of an IPv4 packet.
    pub fn ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        if self.ethertype != IPV4 {
            return None;
        }
        Some((self.address_at(12)?, self.address_at(16)?))
    }

    /// Whether it is ARP or IPv4 from or to an address.
    pub fn concerns(&self, address: &str) -> bool {
        let address = address.parse::<Ipv4Addr>().ok();
        let ends = self.ipv4().or_else(|| self.arp());
        ends.is_some_and(|(from, to)| Some(from) == address || Some(to) == address)
    }

    /// Whether the frame contains an address anywhere, in any protocol.
    pub fn mentions(&self, address: IpAddr) -> bool {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        self.payload.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Whether it is a marker of the sniffer.
    pub(super) fn is_marker(&self) -> bool {
        self.ethertype == MARKER
    }

    fn address_at(&self, offset: usize) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.payload.get(offset..offset + 4)?.try_into().ok()?;
        Some(bytes.into())
    }
}

/// A frame that no bridge forwards (802.1D's reserved addresses) and no host uses.
pub(super) fn marker(mark: u32) -> Vec<u8> {
    let mut bytes = vec![0x01, 0x80, 0xc2, 0x00, 0x00, 0x0f, 0x02, 0, 0, 0, 0, 0x01];
    bytes.extend_from_slice(&MARKER.to_be_bytes());
    bytes.extend_from_slice(&mark.to_be_bytes());
    // The shortest frame that Ethernet allows.
    bytes.resize(60, 0);
    bytes
}

/// A broadcast frame from this MAC, of a protocol that no machine uses.
pub fn frame_from(mac: &str) -> Vec<u8> {
    [&[0xff; 6][..], &mac_bytes(mac), &MARKER.to_be_bytes(), &[0; 46]].concat()
}

/// The id in a tag, without priority.
fn id(tag: u16) -> u16 {
    tag & 0x0fff
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (first, tail) = rest.split_at_checked(2)?;
    *rest = tail;
    Some(u16::from_be_bytes(first.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_outermost_first() {
        let mut bytes = vec![0; 12];
        bytes.extend_from_slice(&[0x81, 0x00, 0x60, 0x88, 0x08, 0x00, 0x45]);
        let frame = Frame::parse(&bytes, Some(0x2033), false).unwrap();
        assert_eq!((frame.vlans, frame.ethertype, frame.payload), (vec![51, 136], IPV4, vec![0x45]));
    }

    #[test]
    fn what_is_cut_short_is_no_frame() {
        assert_eq!(Frame::parse(&[0; 13], None, false), None);
        let marker = Frame::parse(&marker(7), None, true).unwrap();
        assert!(marker.is_marker() && marker.vlans.is_empty());
    }
}
