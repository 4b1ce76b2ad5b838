//! netdevice(7): lookups by interface name, with ioctls.

use std::collections::BTreeSet;
use std::ffi::c_char;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use cni_conf::cni::mac::MacAddr;

/// An interface that can send frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Interface index.
    pub index: i32,
    /// Ethernet address.
    pub mac: MacAddr,
}

impl Interface {
    /// Looks up an interface by name. `None` if there is none.
    pub fn find(name: &str) -> io::Result<Option<Interface>> {
        let Some(found) = ask(name, libc::SIOCGIFINDEX)? else { return Ok(None) };
        // SAFETY: the kernel has filled in this member of the union.
        let index = unsafe { found.ifr_ifru.ifru_ifindex };
        let Some(found) = ask(name, libc::SIOCGIFHWADDR)? else { return Ok(None) };
        // SAFETY: the kernel has filled in this member of the union.
        let [a, b, c, d, e, f, ..] = unsafe { found.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(Some(Interface { index, mac: MacAddr([a, b, c, d, e, f].map(|byte| byte as u8)) }))
    }
}

/// Whether an interface is up and has a carrier (`IFF_UP`, `IFF_RUNNING`). `None` if there is no interface of
/// that name.
pub fn has_carrier(name: &str) -> io::Result<Option<bool>> {
    const PASSES: i32 = libc::IFF_UP | libc::IFF_RUNNING;
    let found = ask(name, libc::SIOCGIFFLAGS)?;
    // SAFETY: the kernel has filled in this member of the union.
    Ok(found.map(|found| i32::from(unsafe { found.ifr_ifru.ifru_flags }) & PASSES == PASSES))
}

/// Every address of the node (getifaddrs(3)).
pub fn node_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call fills in a pointer to a list that it allocates.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut addresses, mut next) = (BTreeSet::new(), first);
    // SAFETY: the list is valid until it is freed. An address is null or of the family that it names.
    unsafe {
        while let Some(entry) = next.as_ref() {
            match entry.ifa_addr.as_ref().map(|address| i32::from(address.sa_family)) {
                Some(libc::AF_INET) => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    addresses.insert(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into());
                }
                Some(libc::AF_INET6) => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    addresses.insert(Ipv6Addr::from(address.sin6_addr.s6_addr).into());
                }
                _ => {}
            }
            next = entry.ifa_next;
        }
        libc::freeifaddrs(first);
    }
    Ok(addresses)
}

fn ask(name: &str, request: libc::c_ulong) -> io::Result<Option<libc::ifreq>> {
    // SAFETY: a plain system call; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut question: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte remains the closing NUL.
    let room = question.ifr_name.len() - 1;
    for (to, from) in question.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: these requests take a pointer to such a structure, which outlives the call. The type of the
    // request differs between C libraries.
    match unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut question) } {
        0.. => Ok(Some(question)),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            error => Err(error),
        },
    }
}
