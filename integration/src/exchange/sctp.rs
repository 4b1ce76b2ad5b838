//! SCTP as one stream between two sockets (RFC 6458 section 4). Such a socket then works as a TCP socket of
//! the standard library.

use std::io::Result;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The interval at which a server checks whether to stop. Unlike with TCP, a shutdown of its socket does not
/// wake it.
const GLANCE: Duration = Duration::from_millis(100);

/// Whether the kernel has it.
pub fn has_sctp() -> bool {
    socket().is_ok()
}

pub(super) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let socket = socket()?;
    with_address(address, |address, length| {
        // SAFETY: a system call on a socket and an address that live through it.
        unsafe { libc::bind(socket.as_raw_fd(), address, length) }
    })?;
    // SAFETY: as above.
    succeeded(unsafe { libc::listen(socket.as_raw_fd(), 16) })?;
    // accept has the time-out of a read.
    let waiting = TcpStream::from(socket);
    waiting.set_read_timeout(Some(GLANCE))?;
    Ok(TcpListener::from(OwnedFd::from(waiting)))
}

pub(super) fn connect(to: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let stream = TcpStream::from(socket()?);
    stream.set_write_timeout(Some(patience))?;
    with_address(to, |address, length| {
        // SAFETY: a system call on a socket and an address that live through it.
        unsafe { libc::connect(stream.as_raw_fd(), address, length) }
    })?;
    Ok(stream)
}

/// For both families: IPv4 is mapped.
fn socket() -> Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let fd =
        unsafe { libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
    succeeded(fd)?;
    // SAFETY: it has just been opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn with_address(
    address: SocketAddr,
    call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> libc::c_int,
) -> Result<()> {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    // SAFETY: all zeros is a valid value.
    let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    raw.sin6_port = address.port().to_be();
    raw.sin6_addr.s6_addr = ip.octets();
    succeeded(call((&raw const raw).cast(), size_of_val(&raw) as libc::socklen_t))
}

fn succeeded(returned: libc::c_int) -> Result<()> {
    if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
