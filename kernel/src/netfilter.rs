//! A netlink socket of NETLINK_NETFILTER, over which nf_tables and connection tracking are spoken to.
//!
//! The kernel works on a message while it is being sent: when send returns, every answer is there to be read,
//! but for lists, which come in portions. So the calls here block, and never for long.

pub mod message;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};

use super::{NetError, Result};
use message::{Answer, Message, answers};

/// Longer than any portion of a list (`NLMSG_GOODSIZE`, or what we offer to read).
const PORTION: usize = 32 * 1024;

/// What a socket's send buffer takes by default on any kernel, in bytes.
const SENDS_UNASKED: usize = 64 * 1024;

/// A socket in the namespace of the thread that opened it. While rules that were deleted are being freed,
/// closing any such socket of the namespace waits for RCU readers, 10 ms and more (`nft_rcv_nl_event`); who
/// exits with one waits as well.
#[derive(Debug)]
pub struct NetfilterSocket {
    socket: OwnedFd,
}

impl NetfilterSocket {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<NetfilterSocket> {
        let failed = |e: Errno| {
            let hint = if e == Errno::EPROTONOSUPPORT { " (modprobe nfnetlink)" } else { "" };
            NetError::new(format!("open a netlink socket to netfilter{hint}"), e)
        };
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .map_err(failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(NetfilterSocket { socket })
    }

    /// Sends messages in one go and returns what the kernel answered to each by its sequence number.
    pub fn exchange(&self, messages: &[u8]) -> Result<Vec<Answer>, Errno> {
        if messages.len() > SENDS_UNASKED {
            setsockopt(&self.socket, SndBufForce, &(2 * messages.len()))?;
            setsockopt(&self.socket, RcvBufForce, &(2 * messages.len()))?;
        }
        send(self.socket.as_raw_fd(), messages, MsgFlags::empty())?;
        let mut told = Vec::new();
        let mut buffer = vec![0; PORTION];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => told.extend(answers(&buffer[..length])),
                Err(Errno::EAGAIN) => return Ok(told),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends one request, and returns the attributes of the objects that the kernel answers with: of a list,
    /// again if it says that they changed while it listed them. `action` names the request in an error.
    pub fn request(&self, message: Message, action: impl Fn() -> String) -> Result<Vec<Vec<u8>>> {
        const ATTEMPTS: usize = 10;
        let message = message.finish();
        for attempt in 1.. {
            let told = self.exchange(&message).map_err(|e| NetError::new(action(), e))?;
            if let Some(errno) = told.iter().find_map(|answer| answer.error) {
                return Err(NetError::new(action(), errno));
            }
            if attempt == ATTEMPTS || !told.iter().any(|answer| answer.interrupted) {
                let objects = told.into_iter().map(|answer| answer.payload);
                return Ok(objects.filter(|payload| !payload.is_empty()).collect());
            }
        }
        Ok(Vec::new())
    }
}

impl AsRawFd for NetfilterSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// `NFNL_SUBSYS_*` of linux/netfilter/nfnetlink.h.
pub(super) const NFTABLES: u16 = 10;
pub(super) const CTNETLINK: u16 = 1;

/// `NFPROTO_UNSPEC`
pub(super) const UNSPEC: u8 = libc::NFPROTO_UNSPEC as u8;
