//! packet(7): whole frames of one interface.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, recv, send, setsockopt, socket,
};

use super::PacketInterface;

/// `PACKET_ADD_MEMBERSHIP`
#[derive(Clone, Copy)]
struct AddMembership;

nix::setsockopt_impl!(
    AddMembership,
    libc::SOL_PACKET,
    libc::PACKET_ADD_MEMBERSHIP,
    libc::packet_mreq,
    SetStruct<libc::packet_mreq>
);

/// Receives the frames of one EtherType that arrive at one interface, not those that leave it.
///
/// Closing the socket takes the kernel about 10 ms.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens a socket, which receives frames from now on.
    pub fn open(interface: PacketInterface, ethertype: u16) -> io::Result<PacketSocket> {
        let socket = unbound()?;
        bind(&socket, interface.index, ethertype)?;
        Ok(PacketSocket(socket))
    }

    /// Receives frames for other MACs as well: the interface is promiscuous while the socket is open.
    pub fn set_promiscuous(&self, interface: PacketInterface) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: interface.index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        Ok(setsockopt(&self.0, AddMembership, &request)?)
    }

    /// Sends a whole frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// The next received frame, truncated to the buffer's length.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A socket that receives nothing before it is bound to its interface: its protocol is 0.
pub(crate) fn unbound() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Packet, SockType::Raw, flags, None)?)
}

/// Receives the frames of one EtherType from now on. With `ETH_P_ALL` these are all frames, also those that
/// leave the interface.
pub(crate) fn bind(socket: &OwnedFd, interface: i32, ethertype: u16) -> io::Result<()> {
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &address(interface, ethertype)?)?)
}

/// `struct sockaddr_ll`, which nix only makes of a pointer.
fn address(interface: i32, ethertype: u16) -> io::Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: interface,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length are those of one local value, which is copied.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
    Ok(address.ok_or(Errno::EINVAL)?)
}

/// Waits until one of the sockets has a frame, at most for `longest`.
pub fn wait<'a>(sockets: impl Iterator<Item = &'a PacketSocket>, longest: Duration) -> io::Result<()> {
    let mut watched: Vec<PollFd<'_>> =
        sockets.map(|socket| PollFd::new(socket.0.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up, or the caller would poll in a busy loop during the last millisecond.
    let milliseconds = PollTimeout::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, milliseconds) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
