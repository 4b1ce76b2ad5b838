//! packet(7): whole frames of one interface.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::Interface;

/// Receives the frames of one EtherType that arrive at one interface, not those that leave it.
///
/// Closing the socket takes the kernel about 10 ms.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens a socket, which receives frames from now on.
    pub fn open(interface: Interface, ethertype: u16) -> io::Result<PacketSocket> {
        const KIND: i32 = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing is queued before the socket is bound to its interface.
        // SAFETY: a plain system call; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, KIND, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = interface.index;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: pointer and length are those of one local value.
        match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
            0 => Ok(PacketSocket(socket)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Receives frames for other MACs as well: the interface is promiscuous while the socket is open.
    pub fn set_promiscuous(&self, interface: Interface) -> io::Result<()> {
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut request: libc::packet_mreq = unsafe { mem::zeroed() };
        request.mr_ifindex = interface.index;
        request.mr_type = libc::PACKET_MR_PROMISC as u16;
        let length = size_of::<libc::packet_mreq>() as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
        // SAFETY: pointer and length are those of one local value.
        match unsafe {
            libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const request).cast(), length)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length are those of one slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next received frame, truncated to the buffer's length.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        // SAFETY: pointer and length are those of one slice.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(length) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// Waits until one of the sockets has a frame, at most for `longest`.
pub fn wait<'a>(sockets: impl Iterator<Item = &'a PacketSocket>, longest: Duration) -> io::Result<()> {
    let mut watched: Vec<libc::pollfd> = sockets
        .map(|socket| libc::pollfd { fd: socket.0.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    // Rounded up, or the caller would poll in a busy loop during the last millisecond.
    let milliseconds = i32::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: pointer and length are those of one vector, which outlives the call.
    match unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, milliseconds) } {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}
