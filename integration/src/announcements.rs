//! Counts what the kernel announces in a namespace.

use crate::Namespace;
use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// linux/rtnetlink.h: links, and addresses of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Room for all announcements of a benchmark.
const BUFFER: usize = 256 << 20;

/// A socket that keeps what rtnetlink announces about links and addresses.
#[derive(Debug)]
pub struct Announcements {
    socket: OwnedFd,
}

impl Announcements {
    /// Counts in a namespace from now on.
    pub fn of(namespace: &Namespace) -> Announcements {
        let open = || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            setsockopt(&socket, RcvBufForce, &BUFFER)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
            Ok(socket)
        };
        Announcements { socket: namespace.enter(open).expect("root can listen to rtnetlink") }
    }

    /// How many datagrams came until now.
    pub fn count(&self) -> usize {
        let mut buffer = [0; 64];
        let mut receive = || recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC);
        let mut count = 0;
        loop {
            match receive() {
                Ok(_) => count += 1,
                Err(Errno::EAGAIN) => return count,
                Err(error) => panic!("cannot count announcements: {error}"),
            }
        }
    }
}
