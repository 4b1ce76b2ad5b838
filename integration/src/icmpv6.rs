//! ICMPv6 messages that tests make.

use std::ffi::CString;
use std::io::{Error, ErrorKind, Result};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The hop limit (RFC 4861 section 7.1). Receivers drop messages with another one, because a router has
/// forwarded them.
const HOP_LIMIT: i32 = 255;

/// Sends a message out of an interface of the calling thread's namespace, from its link-local address.
pub(crate) fn send(interface: &str, to: &str, message: &[u8]) -> Result<()> {
    let to: Ipv6Addr = to.parse().map_err(|_| Error::from(ErrorKind::InvalidInput))?;
    let name = CString::new(interface)?;
    // SAFETY: the pointer is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: a plain system call; the result is checked.
    let fd =
        unsafe { libc::socket(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMPV6) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: pointer and length are those of one value that outlives the call.
    let set = unsafe {
        let length = size_of::<i32>() as libc::socklen_t;
        let value = std::ptr::from_ref(&HOP_LIMIT).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, value, length)
    };
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    address.sin6_family = libc::AF_INET6 as u16;
    address.sin6_addr.s6_addr = to.octets();
    address.sin6_scope_id = index;
    // SAFETY: both pointers are to values that outlive the call, with their lengths.
    let sent = unsafe {
        let length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        let (bytes, address) = (message.as_ptr().cast(), (&raw const address).cast());
        libc::sendto(socket.as_raw_fd(), bytes, message.len(), 0, address, length)
    };
    if set < 0 || sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
