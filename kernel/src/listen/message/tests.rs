//! Frames of each kind, whole, truncated and random.

use super::*;
use crate::probe::{announcement, question, tagged};

pub(in crate::listen) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The MAC in options.
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// A frame from [`MAC`] with an IPv6 packet from fe80::1 to all nodes.
fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = announcement("fe80::1".parse().unwrap(), MAC);
    frame.truncate(54);
    frame[18..20].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    frame[20] = next_header;
    frame.extend_from_slice(payload);
    frame
}

/// A frame from [`MAC`] with a UDP datagram from 10.0.0.1, behind `options` of the IPv4 header.
fn udp4(source_port: u16, options: &[u8], data: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() as u8 / 4;
    let mut frame =
        [&[0xff; 6][..], &MAC.0, &IPV4.to_be_bytes(), &[0x40 | words, 0, 0, 0, 0, 0, 0, 0]].concat();
    frame.extend([64, UDP, 0, 0, 10, 0, 0, 1, 255, 255, 255, 255]);
    frame.extend_from_slice(options);
    frame.extend(source_port.to_be_bytes());
    frame.extend([0, 68, 0, 0, 0, 0]);
    frame.extend_from_slice(data);
    frame
}

fn udp6(source_port: u16, data: &[u8]) -> Vec<u8> {
    let ports = [source_port.to_be_bytes(), 546u16.to_be_bytes()].concat();
    ipv6(UDP, &[&ports[..], &[0; 4], data].concat())
}

fn option_of(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1][..], &mac.0].concat()
}

fn prefix_of(net: &str) -> Vec<u8> {
    let net: Ipv6Net = net.parse().unwrap();
    [&[PREFIX_INFORMATION, 4, net.prefix_len()][..], &[0; 13], &net.addr().octets()].concat()
}

/// A router advertisement with a lifetime of 1800 seconds.
fn router_advertisement(options: &[u8]) -> Vec<u8> {
    ipv6(58, &[&[ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0, 7, 8][..], &[0; 8], options].concat())
}

/// A frame of each kind, and what it says.
pub(in crate::listen) fn samples() -> Vec<(Vec<u8>, Message)> {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = ("10.0.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap());
    let source: Ipv6Addr = "fe80::1".parse().unwrap();
    let arp = |sender, probe| Message::Arp { request: true, mac: MAC, sender, target: v4, probe };
    let mut solicitation = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &v6.octets()].concat();
    solicitation.extend(option_of(SOURCE_LINK_LAYER_ADDRESS, OTHER));
    let redirect = [&[REDIRECT, 0, 0, 0, 0, 0, 0, 0][..], &source.octets(), &v6.octets()].concat();
    let advertised = [option_of(SOURCE_LINK_LAYER_ADDRESS, OTHER), prefix_of("2001:db8::/64")].concat();
    let router = |mac, prefixes| Message::RouterAdvertisement { mac, source, lifetime: 1800, prefixes };
    let dhcp4 = Message::Dhcp { server: [10, 0, 0, 1].into() };
    let dhcp6 = Message::Dhcp { server: source.into() };
    vec![
        (question(v4.into(), MAC), arp(Ipv4Addr::UNSPECIFIED, true)),
        (announcement(v4.into(), MAC), arp(v4, false)),
        (question(v6.into(), MAC), Message::Solicitation { mac: MAC, sender: None, target: v6 }),
        (ipv6(58, &solicitation), Message::Solicitation { mac: OTHER, sender: Some(source), target: v6 }),
        (announcement(v6.into(), MAC), Message::Advertisement { mac: MAC, address: v6 }),
        (ipv6(58, &[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]), Message::RouterSolicitation),
        (router_advertisement(&[]), router(MAC, vec![])),
        (router_advertisement(&advertised), router(OTHER, vec!["2001:db8::/64".parse().unwrap()])),
        (ipv6(58, &redirect), Message::Redirect { source, target: source, destination: v6 }),
        (udp4(DHCPV4_SERVER, &[], &[2, 1, 6, 0]), dhcp4.clone()),
        (udp4(DHCPV4_SERVER, &[1; 8], &[2, 1, 6, 0]), dhcp4),
        (udp6(DHCPV6_SERVER, &[7, 0, 0, 1]), dhcp6),
    ]
}

/// Frames like those of [`samples`] that say nothing.
pub(in crate::listen) fn silent() -> Vec<(&'static str, Vec<u8>)> {
    let mut fragment = udp4(DHCPV4_SERVER, &[], &[2, 1, 6, 0]);
    fragment[21] = 1;
    let mut tcp = udp4(DHCPV4_SERVER, &[], &[2, 1, 6, 0]);
    tcp[23] = 6;
    vec![
        ("a DHCP client", udp4(68, &[], &[1, 1, 6, 0])),
        ("a DHCPv6 client", udp6(546, &[1, 0, 0, 1])),
        ("a later fragment", fragment),
        ("TCP", tcp),
        ("an echo request", ipv6(58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        ("a multicast listener report", ipv6(58, &[132, 0, 0, 0, 0, 0, 0, 0])),
        ("a later type of ICMPv6", ipv6(58, &[138, 0, 0, 0, 0, 0, 0, 0])),
        ("an extension header", ipv6(0, &[58, 0, 0, 0, 0, 0, 0, 0, 135, 0, 0, 0])),
        ("two tags", tagged(tagged(question([10, 0, 0, 5].into(), MAC), Some(5)), Some(6))),
    ]
}

fn said(frame: &[u8]) -> Option<Message> {
    Frame::read(frame, false, None).map(|frame| frame.message)
}

#[test]
fn a_frame_of_each_kind_says_what_it_means() {
    for (frame, expected) in samples() {
        assert_eq!(said(&frame), Some(expected));
    }
    for (name, frame) in silent() {
        assert_eq!(said(&frame), None, "{name}");
    }
    // A relay passes on what a client sent.
    assert_eq!(said(&udp4(DHCPV4_SERVER, &[], &[1, 1, 6, 0])), None);
    assert_eq!(said(&udp6(DHCPV6_SERVER, &[12, 0, 0, 1])), None);
}

#[test]
fn a_tag_in_the_frame_or_outside_of_it_is_the_vlan() {
    for (frame, expected) in samples() {
        let expected = |vlan| Some(Frame { own: true, vlan, from: MAC, message: expected.clone() });
        assert_eq!(Frame::read(&frame, true, None), expected(None));
        assert_eq!(Frame::read(&frame, true, Some(9)), expected(Some(9)));
        let mut inside = tagged(frame, Some(0xe064));
        assert_eq!(Frame::read(&inside, true, None), expected(Some(100)), "without priority");
        inside[12..14].copy_from_slice(&[0x88, 0xa8]);
        assert_eq!(Frame::read(&inside, true, None), expected(Some(100)));
    }
}

#[test]
fn prefixes_are_bounded_and_those_that_cannot_be_are_left_out() {
    let prefixes = |options: &[u8]| match said(&router_advertisement(options)) {
        Some(Message::RouterAdvertisement { prefixes, .. }) => prefixes.len(),
        other => panic!("{other:?}"),
    };
    let one = prefix_of("2001:db8::/64");
    assert_eq!(prefixes(&one.repeat(12)), MOST_PREFIXES);
    assert_eq!(prefixes(&one[..31]), 0, "truncated");
    let mut long = one.clone();
    long[2] = 129;
    assert_eq!(prefixes(&long), 0, "129 bits");
    let mut endless = one.clone();
    endless[1] = 0;
    assert_eq!(prefixes(&[endless, one].concat()), 0, "no length");
}

#[test]
fn a_forwarded_message_and_padding_say_nothing() {
    let (mut frame, _) = samples().swap_remove(4);
    frame[21] = 254;
    assert_eq!(said(&frame), None, "forwarded");
    // An option behind the end of the message.
    let (frame, expected) = samples().swap_remove(6);
    let padded = [frame, option_of(SOURCE_LINK_LAYER_ADDRESS, OTHER)].concat();
    assert_eq!(said(&padded), Some(expected));
}

#[test]
fn truncated_frames_are_skipped_or_say_less() {
    for (frame, whole) in samples() {
        let least = match whole {
            Message::Arp { .. } => 42,
            Message::Solicitation { .. } | Message::Advertisement { .. } => 78,
            Message::RouterAdvertisement { .. } => 70,
            Message::RouterSolicitation => 55,
            Message::Redirect { .. } => 94,
            Message::Dhcp { server } if server.is_ipv4() => frame.len() - 3,
            Message::Dhcp { .. } => 63,
        };
        for end in 0..frame.len() {
            assert_eq!(said(&frame[..end]).is_some(), end >= least, "{whole:?} {end}");
        }
    }
}
