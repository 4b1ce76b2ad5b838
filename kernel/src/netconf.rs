//! `ip netconf`: settings of a whole network namespace. netlink-packet-route does not have these messages.

use std::os::fd::AsRawFd;

use cni_conf::family::Family;
use netlink_packet_core::NLM_F_REQUEST;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::netfilter::message::{MessageBuilder, answers, attribute};
use super::{NetError, Result};

/// From linux/rtnetlink.h and linux/netconf.h.
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_IFINDEX_ALL: i32 = -1;

/// `ip [-6] netconf show dev all`: whether the namespace of the calling thread forwards packets of a family.
pub fn forwards(family: Family) -> Result<bool> {
    let forwarding = ask(number(family))
        .map_err(|e| NetError::new(format!("look up whether the node forwards {family}"), e))?;
    Ok(forwarding.is_some_and(|value| value != 0))
}

/// `AF_INET`, `AF_INET6`
pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

fn ask(family: u8) -> Result<Option<i32>, Errno> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut message = MessageBuilder::new(RTM_GETNETCONF, NLM_F_REQUEST, 1, family, 0);
    message.bytes(NETCONFA_IFINDEX, &NETCONFA_IFINDEX_ALL.to_ne_bytes());
    send(socket.as_raw_fd(), &message.finish(), MsgFlags::empty())?;
    let mut buffer = [0; 4096];
    // The kernel answers during send.
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    let parsed = answers(&buffer[..length]);
    if let Some(errno) = parsed.iter().find_map(|answer| answer.error) {
        return Err(errno);
    }
    let forwarding = parsed.iter().find_map(|answer| attribute(&answer.payload, NETCONFA_FORWARDING));
    Ok(forwarding.and_then(|value| value.try_into().ok()).map(i32::from_ne_bytes))
}
