//! What the kernel announces about the network: links, addresses, routes, neighbours, forwarding databases,
//! rules, VLANs, settings (rtnetlink(7)) and changes of nf_tables.

mod announcement;
mod filter;
mod nftables;
mod route;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use nix::{setsockopt_impl, sockopt_impl};
use tokio::io::unix::AsyncFd;

pub use announcement::{Announcement, LinkState, NftObject, Subsystem};

use crate::header::received;
use crate::watch::watch;

const ROUTE_GROUPS: [u32; 10] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
];
/// Kernels before 5.6 do not have this group. They announce the VLANs of ports with the ports.
const VLANS: u32 = libc::RTNLGRP_BRVLAN;
const NFTABLES: u32 = libc::NFNLGRP_NFTABLES as u32;

/// What a socket holds back for a caller that is busy. What is more is lost, which is announced.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Longer than any announcement but that of a network card with hundreds of virtual functions.
const DATAGRAM: usize = 64 * 1024;

/// Two netlink sockets in one network namespace. Between two calls at most one datagram is kept.
#[derive(Debug)]
pub struct Monitor {
    sources: Vec<Source>,
    /// The source that is read last, so that a busy one does not hide the other.
    last: usize,
    buffer: Box<[u8]>,
    pending: VecDeque<Announcement>,
}

#[derive(Debug)]
struct Source {
    subsystem: Subsystem,
    socket: AsyncFd<OwnedFd>,
}

impl Monitor {
    /// Opens the sockets in the namespace of the calling thread, on the current runtime. From now on, nothing
    /// is missed without [`Announcement::Lost`]. A kernel without nfnetlink has no nf_tables either, and only
    /// the rest is announced.
    pub fn open() -> io::Result<Monitor> {
        let route = open(SockProtocol::NetlinkRoute)?;
        filter::routes().attach(&route)?;
        ROUTE_GROUPS.iter().try_for_each(|group| setsockopt(&route, AddMembership, group))?;
        match setsockopt(&route, AddMembership, &VLANS) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(e.into()),
        }
        let mut sources = vec![Source { subsystem: Subsystem::Route, socket: watch(route)? }];
        match open(SockProtocol::NetlinkNetFilter) {
            Ok(socket) => {
                setsockopt(&socket, AddMembership, &NFTABLES)?;
                sources.push(Source { subsystem: Subsystem::Netfilter, socket: watch(socket)? });
            }
            Err(Errno::EPROTONOSUPPORT) => {}
            Err(e) => return Err(e.into()),
        }
        let buffer = vec![0; DATAGRAM].into_boxed_slice();
        Ok(Monitor { sources, last: 0, buffer, pending: VecDeque::new() })
    }

    /// The next announcement. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> io::Result<Announcement> {
        loop {
            if let Some(announcement) = self.pending.pop_front() {
                return Ok(announcement);
            }
            poll_fn(|context| self.poll_receive(context)).await?;
        }
    }

    /// Receives one datagram, which may announce nothing of interest.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..self.sources.len() {
            self.last = (self.last + 1) % self.sources.len();
            let source = &self.sources[self.last];
            while let Poll::Ready(ready) = source.socket.poll_read_ready(context) {
                let Ok(received) = ready?.try_io(|socket| receive(socket.get_ref(), &mut self.buffer)) else {
                    continue;
                };
                match received? {
                    Some(datagram) => read(source.subsystem, datagram, &mut self.pending),
                    None => self.pending.push_back(Announcement::Lost(source.subsystem)),
                }
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

/// Appends what a datagram announces. Neighbours in it that say the same are one: nf_tables announces each
/// element of a set.
pub fn read(subsystem: Subsystem, datagram: &[u8], announcements: &mut VecDeque<Announcement>) {
    for message in received(datagram) {
        let read = match subsystem {
            Subsystem::Route => route::read(message),
            Subsystem::Netfilter => nftables::read(message),
        };
        if let Some(announcement) = read.filter(|found| announcements.back() != Some(found)) {
            announcements.push_back(announcement);
        }
    }
}

/// A datagram. None if datagrams were lost, or this one is longer than the buffer.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    loop {
        // With MSG_TRUNC the kernel returns the whole length of a truncated datagram.
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Ok(length) => return Ok(buffer.get(..length)),
            Err(Errno::ENOBUFS) => return drain(socket, buffer).map(|()| None),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Discards what a socket that has overflowed still holds. Until it is empty, the kernel drops what is
/// announced, without another error (`NETLINK_S_CONGESTED`): a caller that looked at everything before that
/// would never learn what changes while it looks.
fn drain(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => return Ok(()),
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn open(protocol: SockProtocol) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // The limit of net.core.rmem_max is for those without the permission.
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)
        .or_else(|_| setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER))?;
    Ok(socket)
}

sockopt_impl!(
    /// `NETLINK_ADD_MEMBERSHIP`
    AddMembership,
    SetOnly,
    libc::SOL_NETLINK,
    libc::NETLINK_ADD_MEMBERSHIP,
    u32
);
