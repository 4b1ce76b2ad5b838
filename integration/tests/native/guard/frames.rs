//! Frames that a pod may try to send: its own, and forged ones.

use integration::Site;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses of the pod, a neighbour and the router, and an unused one.
pub const OWN: &str = "172.20.56.20";
pub const OWN6: &str = "fd00:136::1:20";
pub const NEIGHBOUR: &str = "172.20.56.21";
pub const NEIGHBOUR6: &str = "fd00:136::1:21";
pub const ROUTER6: &str = "fd00:136::1";
pub const STRANGER: &str = "192.0.2.66";
pub const ALLOWED: &str = "172.20.56.100";

pub const BROADCAST: [u8; 6] = [0xff; 6];
pub const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
pub const SPANNING_TREE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
pub const FORGED: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub fn frame(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

pub fn arp(operation: u8, sender_mac: [u8; 6], sender: &str, target: &str) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &sender_mac, &v4(sender).octets(), &[0; 6], &v4(target).octets()].concat()
}

/// RARP without addresses, with which QEMU announces a machine to switches.
fn announcement(operation: u8, sender: [u8; 6], target: [u8; 6]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation], &sender[..], &[0; 4], &target, &[0; 4]].concat()
}

/// RFC 791 and RFC 768. Length and checksum are set with the mark.
pub fn udp(from: &str, ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(v4(from).octets());
    packet.extend([255; 4]);
    ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
    packet.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet
}

/// RFC 3376: a message of this type.
fn igmp(kind: u8) -> Vec<u8> {
    const PROTOCOL: usize = 9;
    const BODY: usize = 20;
    let mut packet = udp(OWN, [0, 0]);
    packet[PROTOCOL] = 2;
    packet[BODY] = kind;
    packet
}

/// RFC 8200, to all nodes.
pub fn ipv6(next: u8, from: &str, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 255];
    packet.extend(v6(from).octets());
    packet.extend(v6("ff02::1").octets());
    packet.extend(body);
    packet
}

/// RFC 4861: the type, and the target if it has one.
pub fn icmpv6(from: &str, kind: u8, target: &str) -> Vec<u8> {
    ipv6(58, from, &[&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &v6(target).octets()].concat())
}

pub fn udp6(from: &str, ports: [u16; 2]) -> Vec<u8> {
    ipv6(17, from, &udp_body(ports))
}

fn udp_body(ports: [u16; 2]) -> Vec<u8> {
    [&ports.map(u16::to_be_bytes).concat()[..], &[0, 12, 0, 0, 1, 2, 3, 4]].concat()
}

/// The bytes after the IPv6 header of a packet.
fn body(packet: &[u8]) -> &[u8] {
    &packet[40..]
}

/// RFC 8200 section 4.6: padding options, before the header of the `next` protocol.
fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// Options whose last six bytes are the mark, which fills the packet.
fn options_to_the_end(next: u8) -> [u8; 10] {
    [next, 1, 1, 12, 0, 0, 0, 0, 0, 0]
}

/// RFC 8200 section 4.5, at an offset in units of eight bytes.
fn fragment(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    [next, 0, high, low, 0xca, 0x5e, 0, 1]
}

/// Packets with extension headers, which must not hide forbidden packets (RFC 7113).
fn extended(mine: &str) -> Vec<(&'static str, Vec<u8>, bool)> {
    const FRAGMENT: u8 = 44;
    const ICMPV6: u8 = 58;
    const OPTIONS: u8 = 60;
    const UDP: u8 = 17;
    let advertisement = icmpv6(mine, 134, "::");
    let behind = |head: &[u8], body: &[u8]| [head, body].concat();
    let optional = |next, from, inner: &[u8]| ipv6(OPTIONS, from, &behind(&options(next), inner));
    let fragmented = |next, offset, from, inner: &[u8]| {
        ipv6(FRAGMENT, from, &behind(&fragment(next, offset, offset == 0), inner))
    };
    let whole = ipv6(FRAGMENT, mine, &behind(&fragment(ICMPV6, 0, false), body(&advertisement)));
    let for_neighbour = icmpv6(mine, 136, NEIGHBOUR6);
    vec![
        ("own address behind options", optional(UDP, OWN6, &udp_body([9, 9])), true),
        ("forged address behind options", optional(UDP, "2001:db8::66", &udp_body([9, 9])), false),
        ("router advertisement behind options", optional(ICMPV6, mine, body(&advertisement)), false),
        ("advertisement for a neighbour behind options", optional(ICMPV6, mine, body(&for_neighbour)), false),
        ("router advertisement in the only fragment", whole, false),
        (
            "router advertisement in a first fragment",
            fragmented(ICMPV6, 0, mine, body(&advertisement)),
            false,
        ),
        ("DHCPv6 reply in a first fragment", fragmented(UDP, 0, mine, &udp_body([547, 546])), false),
        ("a first fragment of its own", fragmented(UDP, 0, OWN6, &udp_body([9, 9])), true),
        ("a later fragment of its own", fragmented(UDP, 2, OWN6, &[0; 10]), true),
        ("a later fragment of a stranger", fragmented(UDP, 2, "2001:db8::66", &[0; 10]), false),
        (
            "a first fragment without its message",
            fragmented(OPTIONS, 0, mine, &options_to_the_end(ICMPV6)),
            false,
        ),
        (
            "a first fragment without all headers",
            fragmented(OPTIONS, 0, mine, &options_to_the_end(OPTIONS)),
            false,
        ),
        ("a packet without a message", ipv6(OPTIONS, mine, &options_to_the_end(ICMPV6)), false),
    ]
}

/// The frames of a virtual machine whose link-local address comes from a secret (RFC 7217).
pub fn link_local_cases(own: [u8; 6]) -> Vec<Case> {
    const SECRET: &str = "fe80::1c3b:9f2e:7a54:d801";
    let ip6 = |packet: Vec<u8>| frame(ALL_NODES, own, 0x86dd, &packet);
    let behind_options = [&options(17)[..], &udp_body([9, 9])].concat();
    vec![
        ("from it", ip6(udp6(SECRET, [9, 9])), true),
        ("behind options", ip6(ipv6(60, SECRET, &behind_options)), true),
        ("a later fragment", ip6(ipv6(44, SECRET, &[&fragment(17, 2, false)[..], &[0; 10]].concat())), true),
        ("duplicate detection of it", ip6(icmpv6("::", 135, SECRET)), true),
        ("solicitation", ip6(icmpv6(SECRET, 135, ROUTER6)), true),
        ("advertisement of it", ip6(icmpv6(SECRET, 136, SECRET)), true),
        ("advertisement of its address", ip6(icmpv6(SECRET, 136, OWN6)), true),
        ("router solicitation", ip6(icmpv6(SECRET, 133, "::")), true),
        ("multicast report", ip6(icmpv6(SECRET, 143, "::")), true),
        ("router advertisement", ip6(icmpv6(SECRET, 134, "::")), false),
        ("redirect", ip6(icmpv6(SECRET, 137, OWN6)), false),
        ("DHCPv6 reply", ip6(udp6(SECRET, [547, 546])), false),
        ("advertisement for a neighbour", ip6(icmpv6(SECRET, 136, NEIGHBOUR6)), false),
        ("duplicate detection of a neighbour's", ip6(icmpv6("::", 135, NEIGHBOUR6)), false),
        ("from another subnet of fe80::/10", ip6(udp6("fe80:1::1", [9, 9])), false),
        ("forged MAC", frame(ALL_NODES, FORGED, 0x86dd, &udp6(SECRET, [9, 9])), false),
        ("a stranger", ip6(udp6("2001:db8::66", [9, 9])), false),
    ]
}

/// A frame that a pod sends, and whether it is allowed.
pub type Case = (&'static str, Vec<u8>, bool);

/// All cases. `own` is the pod's MAC.
pub fn cases(own: [u8; 6]) -> Vec<Case> {
    let link_local = |mac: [u8; 6]| {
        let [a, b, c, d, e, f] = mac.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f).to_string()
    };
    let (mine, not_mine) = (link_local(own), link_local(FORGED));
    let of = |mac| move |ethertype, payload: Vec<u8>| frame(BROADCAST, mac, ethertype, &payload);
    let mut bpdu = vec![0x42, 0x42, 3];
    bpdu.resize(38, 0);
    let tagged = |vid: u16, ethertype: u16, payload: Vec<u8>| {
        [&vid.to_be_bytes()[..], &ethertype.to_be_bytes(), &payload].concat()
    };
    let (own_frame, forged) = (of(own), of(FORGED));
    let (ip, ip6, arps, rarp) = (0x0800, 0x86dd, 0x0806, 0x8035);
    let mut cases = vec![
        ("own address", own_frame(ip, udp(OWN, [9, 9])), true),
        ("forged MAC", forged(ip, udp(OWN, [9, 9])), false),
        ("forged address", own_frame(ip, udp(STRANGER, [9, 9])), false),
        ("the neighbour's address", own_frame(ip, udp(NEIGHBOUR, [9, 9])), false),
        ("an allowed address", own_frame(ip, udp(ALLOWED, [9, 9])), true),
        ("ARP request", own_frame(arps, arp(1, own, OWN, Site::GATEWAY)), true),
        ("ARP announcement of an allowed address", own_frame(arps, arp(1, own, ALLOWED, ALLOWED)), true),
        ("ARP probe", own_frame(arps, arp(1, own, "0.0.0.0", OWN)), true),
        ("ARP probe for a neighbour's address", own_frame(arps, arp(1, own, "0.0.0.0", NEIGHBOUR)), false),
        ("ARP probe for an unused address", own_frame(arps, arp(1, own, "0.0.0.0", STRANGER)), false),
        ("ARP probe for an allowed address", own_frame(arps, arp(1, own, "0.0.0.0", ALLOWED)), true),
        ("ARP probe in another's name", own_frame(arps, arp(1, FORGED, "0.0.0.0", OWN)), false),
        ("RARP announcement", own_frame(rarp, announcement(3, own, own)), true),
        ("RARP announcement by another MAC", forged(rarp, announcement(3, own, own)), false),
        ("RARP announcement of another MAC", own_frame(rarp, announcement(3, FORGED, FORGED)), false),
        ("RARP request for another MAC", own_frame(rarp, announcement(3, own, FORGED)), false),
        ("RARP answer", own_frame(rarp, announcement(4, own, own)), false),
        ("ARP reply for the router", own_frame(arps, arp(2, own, Site::GATEWAY, NEIGHBOUR)), false),
        ("ARP reply for a neighbour", own_frame(arps, arp(2, own, NEIGHBOUR, Site::GATEWAY)), false),
        ("ARP reply with another MAC inside", own_frame(arps, arp(2, FORGED, OWN, Site::GATEWAY)), false),
        ("DHCP offer", own_frame(ip, udp(OWN, [67, 68])), false),
        ("DHCP request", own_frame(ip, udp(OWN, [68, 67])), true),
        ("BPDU", frame(SPANNING_TREE, own, 38, &bpdu), false),
        ("own IPv6 address", own_frame(ip6, udp6(OWN6, [9, 9])), true),
        ("own link-local address", own_frame(ip6, udp6(&mine, [9, 9])), true),
        ("another link-local address", own_frame(ip6, udp6(&not_mine, [9, 9])), false),
        ("forged IPv6 address", own_frame(ip6, udp6("2001:db8::66", [9, 9])), false),
        ("the neighbour's IPv6 address", own_frame(ip6, udp6(NEIGHBOUR6, [9, 9])), false),
        ("no IPv6 address", own_frame(ip6, udp6("::", [9, 9])), false),
        ("DHCPv6 reply", own_frame(ip6, udp6(&mine, [547, 546])), false),
        ("router advertisement", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 134, "::")), false),
        ("redirect", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 137, OWN6)), false),
        ("IGMP query", frame(BROADCAST, own, 0x0800, &igmp(0x11)), false),
        ("IGMP report", frame(BROADCAST, own, 0x0800, &igmp(0x22)), true),
        ("query of multicast listeners", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 130, "::")), false),
        ("multicast router's advertisement", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 151, "::")), false),
        ("report of a multicast listener", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 143, "::")), true),
        ("router solicitation", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 133, "::")), true),
        ("advertisement of its own", frame(ALL_NODES, own, ip6, &icmpv6(OWN6, 136, OWN6)), true),
        ("advertisement for the router", frame(ALL_NODES, own, ip6, &icmpv6(OWN6, 136, ROUTER6)), false),
        ("advertisement for a neighbour", frame(ALL_NODES, own, ip6, &icmpv6(&mine, 136, NEIGHBOUR6)), false),
        ("advertisement by a stranger", frame(ALL_NODES, own, ip6, &icmpv6(NEIGHBOUR6, 136, OWN6)), false),
        ("duplicate detection of its own", frame(ALL_NODES, own, ip6, &icmpv6("::", 135, OWN6)), true),
        (
            "duplicate detection of a neighbour's",
            frame(ALL_NODES, own, ip6, &icmpv6("::", 135, NEIGHBOUR6)),
            false,
        ),
        ("a tag", own_frame(0x8100, tagged(51, ip, udp(OWN, [9, 9]))), false),
        ("no VLAN's tag", own_frame(0x8100, tagged(0, ip, udp(STRANGER, [9, 9]))), false),
        ("a provider's tag", own_frame(0x88a8, tagged(51, ip, udp(OWN, [9, 9]))), false),
        ("an unknown tag", own_frame(0x9200, tagged(51, ip, udp(STRANGER, [9, 9]))), false),
        (
            "IPv4 in a frame of 802.2",
            own_frame(40, [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &udp(STRANGER, [9, 9])].concat()),
            false,
        ),
    ];
    let extended = extended(&mine).into_iter();
    cases.extend(extended.map(|(name, packet, may)| (name, frame(ALL_NODES, own, ip6, &packet), may)));
    cases
}

pub fn mark(number: usize) -> [u8; 6] {
    [0xca, 0x5e, 0xca, 0x5e, 0, number as u8]
}

/// A frame with its mark at the end of the packet. A bridge truncates bytes after the packet, and drops
/// invalid packets.
pub fn marked(bytes: &[u8], number: usize) -> Vec<u8> {
    let mut frame = [bytes, &mark(number)[..]].concat();
    let tag = if matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) { 4 } else { 0 };
    let packet = &mut frame[12 + tag..];
    let length = packet.len() as u16 - 2;
    match packet[..2] {
        [0x08, 0x00] => {
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            let words = packet[2..22].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum: u32 = words.sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[12..14].copy_from_slice(&sum.to_be_bytes());
        }
        [0x86, 0xdd] => packet[6..8].copy_from_slice(&(length - 40).to_be_bytes()),
        _ => {}
    }
    frame
}
