//! Which frames the socket receives. A listener on an uplink would otherwise be woken up for all of its
//! traffic.

use crate::bpf::{FilterProgram, Label, Size, Test};
use crate::listen::SNAPSHOT;
use crate::listen::message::{
    DHCPV4_SERVER, DHCPV6_SERVER, ETHERTYPE, IPV4, ROUTER_SOLICITATION, TAG, TAGS, UDP,
};
use crate::probe::ndisc::ICMPV6;
use crate::probe::{ARP, ETHERNET, IPV6};

/// Offsets in an untagged frame.
const PACKET: u32 = ETHERNET as u32;
const IPV4_FRAGMENT: u32 = PACKET + 6;
const IPV4_PROTOCOL: u32 = PACKET + 9;
const IPV6_NEXT_HEADER: u32 = PACKET + 6;
const IPV6_MESSAGE: u32 = PACKET + 40;

/// Neighbour discovery has the types from router solicitation to this one.
const REDIRECT: u32 = 137;

/// Passes ARP, neighbour discovery and what comes from the ports of DHCP servers; each untagged, or behind
/// one tag. The index is the length of the tag.
pub(super) fn program() -> FilterProgram {
    let mut program = FilterProgram::default();
    let (tagged, untagged, by_type) = (program.label(), program.label(), program.label());
    let (ipv4, ipv6) = (program.label(), program.label());
    let (accept, drop) = (program.label(), program.label());
    program.load(Size::Half, ETHERTYPE as u32);
    for tag in TAGS {
        program.go_to_if(Test::Equals(tag.into()), tagged);
    }
    program.go_to(untagged);
    program.place(tagged);
    program.set_index(TAG as u32);
    program.go_to(by_type);
    program.place(untagged);
    program.set_index(0);
    program.place(by_type);
    program.load_behind_index(Size::Half, ETHERTYPE as u32);
    program.go_to_if(Test::Equals(ARP.into()), accept);
    program.go_to_if(Test::Equals(IPV4.into()), ipv4);
    program.go_to_if(Test::Equals(IPV6.into()), ipv6);
    program.go_to(drop);
    program.place(ipv4);
    of_ipv4(&mut program, accept, drop);
    program.place(ipv6);
    of_ipv6(&mut program, accept, drop);
    program.place(accept);
    program.accept(SNAPSHOT as u32);
    program.place(drop);
    program.drop_message();
    program
}

/// UDP from a DHCP server, and no later fragment.
fn of_ipv4(program: &mut FilterProgram, accept: Label, drop: Label) {
    const OFFSET: u32 = 0x1fff;
    const WORDS: u32 = 0x0f;
    let udp = program.label();
    program.load_behind_index(Size::Byte, IPV4_PROTOCOL);
    program.go_to_if(Test::Equals(UDP.into()), udp);
    program.go_to(drop);
    program.place(udp);
    program.load_behind_index(Size::Half, IPV4_FRAGMENT);
    program.go_to_if(Test::HasBits(OFFSET), drop);
    // The header is as long as it says, in words of four bytes.
    program.load_behind_index(Size::Byte, PACKET);
    program.mask(WORDS);
    program.multiply(4);
    program.advance_index();
    program.load_behind_index(Size::Half, PACKET);
    program.go_to_if(Test::Equals(DHCPV4_SERVER.into()), accept);
    program.go_to(drop);
}

/// Neighbour discovery or UDP from a DHCP server, without extension headers.
fn of_ipv6(program: &mut FilterProgram, accept: Label, drop: Label) {
    let (icmp, udp) = (program.label(), program.label());
    program.load_behind_index(Size::Byte, IPV6_NEXT_HEADER);
    program.go_to_if(Test::Equals(ICMPV6.into()), icmp);
    program.go_to_if(Test::Equals(UDP.into()), udp);
    program.go_to(drop);
    program.place(icmp);
    program.load_behind_index(Size::Byte, IPV6_MESSAGE);
    program.go_to_if(Test::Above(REDIRECT), drop);
    program.go_to_if(Test::Above(u32::from(ROUTER_SOLICITATION) - 1), accept);
    program.go_to(drop);
    program.place(udp);
    program.load_behind_index(Size::Half, IPV6_MESSAGE);
    program.go_to_if(Test::Equals(DHCPV6_SERVER.into()), accept);
    program.go_to(drop);
}

#[cfg(test)]
mod tests;
