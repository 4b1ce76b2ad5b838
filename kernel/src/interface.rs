//! netdevice(7): lookups by interface name, with ioctls.

use std::collections::BTreeSet;
use std::ffi::c_char;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use cni_conf::cni::mac::MacAddr;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{Conn, addr};

/// An interface that can send frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInterface {
    /// Interface index.
    pub index: i32,
    /// Ethernet address.
    pub mac: MacAddr,
}

impl PacketInterface {
    /// Looks up an interface by name. `None` if there is none.
    pub fn find(name: &str) -> io::Result<Option<PacketInterface>> {
        let index = match if_nametoindex(name) {
            Err(Errno::ENODEV) => return Ok(None),
            index => index?.cast_signed(),
        };
        let Some(found) = ask(name, libc::SIOCGIFHWADDR)? else { return Ok(None) };
        // SAFETY: the kernel has filled in this member of the union.
        let [a, b, c, d, e, f, ..] = unsafe { found.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(Some(PacketInterface { index, mac: MacAddr([a, b, c, d, e, f].map(|byte| byte as u8)) }))
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

/// Every address of the node. getifaddrs(3) would list all interfaces as well, of which a node has many more.
pub fn node_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let listed = Conn::open().and_then(|conn| addr::all_at_once(&conn));
    let addresses = listed.map_err(io::Error::other)?;
    Ok(addresses.into_iter().map(|address| address.net.addr()).collect())
}

fn ask(name: &str, request: libc::c_ulong) -> io::Result<Option<libc::ifreq>> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut question: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte remains the closing NUL.
    let room = question.ifr_name.len() - 1;
    for (to, from) in question.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: these requests take a pointer to such a structure, which outlives the call. The type of the
    // request differs between C libraries.
    match Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut question) }) {
        Ok(_) => Ok(Some(question)),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
