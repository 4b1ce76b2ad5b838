//! What the rtnetlink socket does not receive. A router with the whole routing table of the Internet has
//! millions of routes, and nobody is to be woken up for each.

use crate::bpf::{FilterProgram, Size, Test};
use crate::monitor::route::{RTM_DELROUTE, RTM_NEWROUTE};

/// Offsets of `nlmsghdr.nlmsg_type`, and behind that header of `rtmsg.rtm_dst_len`, `rtm_protocol` and
/// `rtm_type`. The kernel sends each route in a datagram of its own.
const MESSAGE_TYPE: u32 = 4;
const PREFIX_LENGTH: u32 = 17;
const PROTOCOL: u32 = 21;
const ROUTE_TYPE: u32 = 23;

const KERNEL: u32 = libc::RTPROT_KERNEL as u32;
/// linux/rtnetlink.h: gated, mrt, zebra, bird, xorp, babel, openr, bgp, isis, ospf, rip, eigrp.
const DAEMONS: [u32; 12] = [8, 10, 11, 12, 14, 42, 99, 186, 187, 188, 189, 192];
/// Types of the routes that the kernel derives from addresses.
const OF_ADDRESSES: [u8; 4] = [libc::RTN_LOCAL, libc::RTN_BROADCAST, libc::RTN_ANYCAST, libc::RTN_MULTICAST];

/// Drops the routes of routing daemons except default routes, and the routes of the kernel that are announced
/// as addresses too.
pub(super) fn routes() -> FilterProgram {
    let mut program = FilterProgram::default();
    let (route, of_kernel) = (program.label(), program.label());
    let (accept, drop) = (program.label(), program.label());
    program.load(Size::Half, MESSAGE_TYPE);
    for kind in [RTM_NEWROUTE, RTM_DELROUTE] {
        program.go_to_if(Test::Equals(loaded(kind)), route);
    }
    program.go_to(accept);
    program.place(route);
    program.load(Size::Byte, PROTOCOL);
    program.go_to_if(Test::Equals(KERNEL), of_kernel);
    program.load(Size::Byte, PREFIX_LENGTH);
    program.go_to_if(Test::Equals(0), accept);
    program.load(Size::Byte, PROTOCOL);
    for daemon in DAEMONS {
        program.go_to_if(Test::Equals(daemon), drop);
    }
    program.go_to(accept);
    program.place(of_kernel);
    program.load(Size::Byte, ROUTE_TYPE);
    for kind in OF_ADDRESSES {
        program.go_to_if(Test::Equals(kind.into()), drop);
    }
    program.place(accept);
    program.accept(u32::MAX);
    program.place(drop);
    program.drop_message();
    program
}

/// BPF loads network byte order, and netlink has the machine's.
fn loaded(number: u16) -> u32 {
    u16::from_be_bytes(number.to_ne_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::run;
    use crate::netfilter::message::MessageBuilder;

    const BGP: u8 = 186;
    const STATIC: u8 = libc::RTPROT_STATIC;
    const BY_KERNEL: u8 = libc::RTPROT_KERNEL;

    /// Whether a route is received.
    fn passes(message_type: u16, prefix_length: u8, protocol: u8, route_type: u8) -> bool {
        let mut message = MessageBuilder::new(message_type, 0, 0, libc::AF_INET as u8, 0).finish();
        message[17] = prefix_length;
        message.extend([254, protocol, 0, route_type, 0, 0, 0, 0]);
        let received = run(&routes(), &message);
        assert!(received.as_ref().is_none_or(|received| *received == message), "not truncated");
        received.is_some()
    }

    #[test]
    fn routes_of_daemons_are_dropped_and_their_default_routes_are_not() {
        for kind in [RTM_NEWROUTE, RTM_DELROUTE] {
            assert!(!passes(kind, 24, BGP, libc::RTN_UNICAST));
            assert!(passes(kind, 0, BGP, libc::RTN_UNICAST));
            assert!(passes(kind, 24, STATIC, libc::RTN_UNICAST));
        }
        assert!(passes(libc::RTM_NEWADDR, 24, BGP, libc::RTN_UNICAST), "no route");
    }

    #[test]
    fn routes_of_addresses_are_dropped_and_those_of_subnets_are_not() {
        for kind in OF_ADDRESSES {
            assert!(!passes(RTM_NEWROUTE, 32, BY_KERNEL, kind), "{kind}");
            assert!(passes(RTM_NEWROUTE, 32, STATIC, kind), "{kind}");
        }
        assert!(passes(RTM_NEWROUTE, 24, BY_KERNEL, libc::RTN_UNICAST));
    }
}
