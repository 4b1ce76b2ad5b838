//! `ip netconf`: settings of a whole network namespace. netlink-packet-route has no such messages.

use std::os::fd::AsRawFd;

use netlink_packet_core::NLM_F_REQUEST;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::netfilter::message::{answers, attribute};
use super::{NetError, Result};

/// Of linux/rtnetlink.h and linux/netconf.h.
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_IFINDEX_ALL: i32 = -1;

/// `ip [-6] netconf show dev all`: whether the calling thread's namespace forwards packets of a family.
pub fn forwards(ipv6: bool) -> Result<bool> {
    let told = ask(&request(ipv6))
        .map_err(|e| NetError::new(format!("ip -{} netconf show dev all", if ipv6 { 6 } else { 4 }), e))?;
    Ok(told.is_some_and(|value| value != 0))
}

fn ask(request: &[u8]) -> Result<Option<i32>, Errno> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = [0; 4096];
    // The kernel has answered by the time that it takes a request.
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    let told = answers(&buffer[..length]);
    if let Some(errno) = told.iter().find_map(|answer| answer.error) {
        return Err(errno);
    }
    let forwarding = told.iter().find_map(|answer| attribute(&answer.payload, NETCONFA_FORWARDING));
    Ok(forwarding.and_then(|value| value.try_into().ok()).map(i32::from_ne_bytes))
}

/// `struct nlmsghdr`, `struct netconfmsg` and one attribute, native byte order.
fn request(ipv6: bool) -> [u8; 28] {
    let mut message = [0; 28];
    message[0..4].copy_from_slice(&28u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETNETCONF.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message[16] = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    message[20..22].copy_from_slice(&8u16.to_ne_bytes());
    message[22..24].copy_from_slice(&NETCONFA_IFINDEX.to_ne_bytes());
    message[24..28].copy_from_slice(&NETCONFA_IFINDEX_ALL.to_ne_bytes());
    message
}
