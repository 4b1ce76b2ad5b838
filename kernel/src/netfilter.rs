//! A NETLINK_NETFILTER socket, for nf_tables and connection tracking.
//!
//! The kernel processes a message during send. When send returns, every answer can be read. Only lists come
//! in portions. The calls here therefore block, but never for long.

pub mod message;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};

use super::whole::{List, whole};
use super::{NetError, Result};
use message::{Answer, MessageBuilder, answers};

/// Longer than any portion of a list (`NLMSG_GOODSIZE`, or the size of the buffer that is read into).
const PORTION: usize = 32 * 1024;

/// The default size of a socket's send buffer on any kernel, in bytes.
const SENDS_UNASKED: usize = 64 * 1024;

/// A socket in the namespace of the thread that opened it. While the kernel frees deleted rules, closing any
/// such socket of the namespace waits for RCU readers, 10 ms or more (`nft_rcv_nl_event`). A process that
/// exits with an open socket waits as well.
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

    /// Sends messages in one call and returns the kernel's answers, each with the sequence number of its
    /// message.
    pub fn exchange(&self, messages: &[u8]) -> Result<Vec<Answer>, Errno> {
        if messages.len() > SENDS_UNASKED {
            setsockopt(&self.socket, SndBufForce, &(2 * messages.len()))?;
            setsockopt(&self.socket, RcvBufForce, &(2 * messages.len()))?;
        }
        send(self.socket.as_raw_fd(), messages, MsgFlags::empty())?;
        let mut received = Vec::new();
        let mut buffer = vec![0; PORTION];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => received.extend(answers(&buffer[..length])),
                Err(Errno::EAGAIN) => return Ok(received),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends one request and returns the attributes of the objects in the answer. `action` names the request
    /// in an error.
    pub fn request(&self, message: MessageBuilder, action: impl Fn() -> String) -> Result<Vec<Vec<u8>>> {
        let message = message.finish();
        whole(&action, || {
            let received = self.exchange(&message).map_err(|e| NetError::new(action(), e))?;
            if let Some(errno) = received.iter().find_map(|answer| answer.error) {
                return Err(NetError::new(action(), errno));
            }
            let interrupted = received.iter().any(|answer| answer.interrupted);
            let objects = received.into_iter().map(|answer| answer.payload);
            Ok(List { objects: objects.filter(|payload| !payload.is_empty()).collect(), interrupted })
        })
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
