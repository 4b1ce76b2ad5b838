//! ARP for IPv4 over Ethernet (RFC 826), according to RFC 5227.

use std::net::Ipv4Addr;

use cni_conf::cni::mac::MacAddr;

use super::{ARP, Claim, Stance, ethernet};

/// Hardware type 1, protocol type 0x0800, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const LENGTH: usize = 28;
const BROADCAST: [u8; 6] = [0xff; 6];

/// An ARP probe: a request whose sender has no address yet.
pub(super) fn probe(addr: Ipv4Addr, own: MacAddr) -> Vec<u8> {
    request(own, Ipv4Addr::UNSPECIFIED, addr)
}

/// An ARP announcement: a request for the sender's own address.
pub(super) fn announcement(addr: Ipv4Addr, own: MacAddr) -> Vec<u8> {
    request(own, addr, addr)
}

fn request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ARP);
    for part in [&ETHERNET_IPV4[..], &REQUEST, &mac.0, &sender.octets(), &[0; 6], &target.octets()] {
        frame.extend_from_slice(part);
    }
    frame
}

/// What a packet says.
pub(crate) struct Packet {
    /// A request, not a reply.
    pub(crate) request: bool,
    /// The sender's MAC.
    pub(crate) mac: MacAddr,
    /// The sender's address. Unspecified in a probe.
    pub(crate) sender: Ipv4Addr,
    /// The address that a request asks for.
    pub(crate) target: Ipv4Addr,
}

/// Reads a request or reply for IPv4 over Ethernet.
pub(crate) fn read(packet: &[u8]) -> Option<Packet> {
    let packet: &[u8; LENGTH] = packet.first_chunk()?;
    if packet[..6] != ETHERNET_IPV4 {
        return None;
    }
    let request = match [packet[6], packet[7]] {
        REQUEST => true,
        REPLY => false,
        _ => return None,
    };
    let address =
        |start: usize| Ipv4Addr::new(packet[start], packet[start + 1], packet[start + 2], packet[start + 3]);
    let mac = MacAddr(packet[8..14].try_into().ok()?);
    Some(Packet { request, mac, sender: address(14), target: address(24) })
}

/// The sender of a packet, and the address that it has. If the packet is a probe, the address that it probes
/// for (RFC 5227 section 2.1.1).
pub(super) fn claim(packet: &[u8]) -> Option<Claim> {
    let Packet { request, mac, sender, target } = read(packet)?;
    match (sender.is_unspecified(), request) {
        (false, _) => Some(Claim { addr: sender.into(), mac, stance: Stance::Uses }),
        (true, true) => Some(Claim { addr: target.into(), mac, stance: Stance::Probes }),
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_42_bytes_and_has_no_sender_address() {
        let own = MacAddr([2, 0, 0, 0, 0, 1]);
        let frame = probe(Ipv4Addr::new(172, 20, 56, 16), own);
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..14], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(frame[28..32], [0; 4]);
        assert_eq!(frame[38..], [172, 20, 56, 16]);
    }

    #[test]
    fn a_senders_own_address_counts_in_requests_and_replies() {
        let mut packet = probe(Ipv4Addr::new(10, 0, 0, 5), MacAddr([2; 6])).split_off(14);
        packet[14..18].copy_from_slice(&[10, 0, 0, 9]);
        let expected = Some(Claim { addr: [10, 0, 0, 9].into(), mac: MacAddr([2; 6]), stance: Stance::Uses });
        assert_eq!(claim(&packet), expected);
        packet[7] = 2;
        assert_eq!(claim(&packet), expected);
        packet[14..18].fill(0);
        assert_eq!(claim(&packet), None, "a reply without a sender address");
        packet[4] = 8;
        assert_eq!(claim(&packet), None, "not Ethernet");
    }
}
