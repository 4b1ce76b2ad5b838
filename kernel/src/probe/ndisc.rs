//! Neighbour discovery (RFC 4861) for duplicate address detection and announcements.

use std::net::Ipv6Addr;

use cni_conf::cni::mac::MacAddr;

use super::{Claim, IPV6, Stance, ethernet, multicast};

pub(crate) const ICMPV6: u8 = 58;
/// RFC 4861 section 7.1: a message that a router forwarded has another hop limit, and is ignored.
const HOP_LIMIT: u8 = 255;
pub(crate) const SOLICITATION: u8 = 135;
pub(crate) const ADVERTISEMENT: u8 = 136;
/// The option of an advertisement that has the MAC of its target.
pub(crate) const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Length of the IPv6 header, and of a message without options.
const HEADER: usize = 40;
const MESSAGE: usize = 24;

/// The solicitation of duplicate address detection: from the unspecified address to the target's
/// solicited-node group (RFC 4291 section 2.7.1).
pub(super) fn solicitation(addr: Ipv6Addr, own: MacAddr) -> Vec<u8> {
    let [.., a, b, c] = addr.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &addr.octets()[..]].concat();
    frame(own, Ipv6Addr::UNSPECIFIED, group, message)
}

/// An unsolicited advertisement to all nodes.
pub(super) fn announcement(addr: Ipv6Addr, own: MacAddr) -> Vec<u8> {
    frame(own, addr, ALL_NODES, advertisement(addr, own))
}

/// A neighbour advertisement with the override flag (RFC 4861 section 4.4), without its checksum.
pub(crate) fn advertisement(addr: Ipv6Addr, mac: MacAddr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let option = [TARGET_LINK_LAYER_ADDRESS, 1];
    [&[ADVERTISEMENT, 0, 0, 0][..], &[OVERRIDE, 0, 0, 0], &addr.octets(), &option, &mac.0].concat()
}

/// The whole frame to a group. Fills in the message's checksum.
fn frame(mac: MacAddr, from: Ipv6Addr, group: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(from, group, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(multicast(group), mac, IPV6);
    let [high, low] = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    for part in
        [&[0x60, 0, 0, 0, high, low, ICMPV6, HOP_LIMIT][..], &from.octets(), &group.octets(), &message]
    {
        frame.extend_from_slice(part);
    }
    frame
}

/// Sender and message of an ICMPv6 packet that no router has forwarded. Extension headers are not looked
/// behind.
pub(crate) fn read(packet: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let (header, message) = packet.split_at_checked(HEADER)?;
    if header[0] >> 4 != 6 || header[6] != ICMPV6 || header[7] != HOP_LIMIT {
        return None;
    }
    // What follows the message pads the frame.
    let length = usize::from(u16::from_be_bytes([header[4], header[5]])).min(message.len());
    Some((<[u8; 16]>::try_from(&header[8..24]).ok()?.into(), &message[..length]))
}

/// The address that a packet claims: the target of an advertisement, or of another host's duplicate address
/// detection.
pub(super) fn claim(packet: &[u8], mac: MacAddr) -> Option<Claim> {
    let (from, message) = read(packet)?;
    let message: &[u8; MESSAGE] = message.first_chunk()?;
    let target: [u8; 16] = message[8..24].try_into().ok()?;
    let stance = match message[0] {
        ADVERTISEMENT => Stance::Uses,
        // A solicitation from an address only looks for a neighbour.
        SOLICITATION if from.is_unspecified() => Stance::Probes,
        _ => return None,
    };
    Some(Claim { addr: Ipv6Addr::from(target).into(), mac, stance })
}

/// The Internet checksum over the message and its pseudo-header (RFC 8200 section 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let summed = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6], message].concat();
    let mut sum: u32 = summed
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        solicitation("2001:db8::16".parse().unwrap(), MacAddr([2; 6])).split_off(14)
    }

    #[test]
    fn group_length_and_checksum_of_a_packet_are_right() {
        let announced = announcement("2001:db8::16".parse().unwrap(), MacAddr([2; 6])).split_off(14);
        for (packet, group) in [(packet(), "ff02::1:ff00:16"), (announced, "ff02::1")] {
            let address =
                |start: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[start..start + 16]).unwrap());
            assert_eq!(address(24), group.parse::<Ipv6Addr>().unwrap());
            assert_eq!(usize::from(packet[5]), packet.len() - 40);
            assert_eq!(checksum(address(8), address(24), &packet[40..]), 0);
        }
    }

    #[test]
    fn advertisements_and_detection_claim_and_lookups_do_not() {
        let claimed = |change: fn(&mut [u8])| {
            let mut packet = packet();
            change(&mut packet);
            claim(&packet, MacAddr([2; 6]))
        };
        let target =
            |stance| Some(Claim { addr: "2001:db8::16".parse().unwrap(), mac: MacAddr([2; 6]), stance });
        assert_eq!(claimed(|_| {}), target(Stance::Probes));
        assert_eq!(claimed(|packet| packet[23] = 1), None, "from an address");
        assert_eq!(claimed(|packet| (packet[23], packet[40]) = (1, 136)), target(Stance::Uses));
        assert_eq!(claimed(|packet| packet[40] = 134), None, "a router's");
        assert_eq!(claimed(|packet| packet[7] = 254), None, "forwarded");
        assert_eq!(claimed(|packet| packet[6] = 17), None, "UDP");
    }
}
