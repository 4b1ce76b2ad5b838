//! `ip link del`, without the wait at its end.
//!
//! The kernel announces the removal of an interface 1 to 2 ms after the request. Name and addresses are free
//! then. The kernel keeps the requester for another 15 to 20 ms until RCU readers are done. A process cannot
//! leave this wait to a thread, because exit waits for the thread. So a child process makes the request. The
//! child holds no open file of this process except its end of a pipe and the sockets that it needs or keeps.
//! If the announcement comes first, the child outlives this process by those milliseconds.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use nix::unistd::{ForkResult, chdir, fork, pipe2, write};

use super::header::{self, NLMSG_ERROR, received};
use super::nft::Nft;
use super::{Conn, NetError, Result};

const RTM_DELLINK: u16 = 17;
/// `RTMGRP_LINK` of linux/rtnetlink.h: announcements about interfaces.
const GROUP_LINK: u32 = 1;

/// `ip link del` by index. Waits until the kernel is done. A missing interface is no error.
pub async fn link(conn: &Conn, index: u32, name: &str) -> Result<()> {
    match conn.change(about(index), 0, || format!("remove interface {name}")).await {
        Err(e) if e.not_found() => Ok(()),
        other => other,
    }
}

/// Sockets to close. Closing one waits until RCU readers are done with the rules that were deleted through
/// it. The child of a [`Remover`] can wait instead of the caller.
#[derive(Debug, Default)]
pub struct DeferredClose(Vec<Nft>);

impl Extend<Nft> for DeferredClose {
    fn extend<T: IntoIterator<Item = Nft>>(&mut self, sockets: T) {
        self.0.extend(sockets);
    }
}

/// The sockets for a removal, opened in the namespace of the calling thread.
#[derive(Debug)]
pub struct Remover {
    request: OwnedFd,
    announcements: OwnedFd,
}

impl Remover {
    /// Opens both sockets. Announcements are received from now on.
    pub fn open() -> Result<Remover> {
        let failed = |e| NetError::new("open a netlink socket", e);
        let open = || {
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
        };
        let announcements = open().map_err(failed)?;
        bind(announcements.as_raw_fd(), &NetlinkAddr::new(0, GROUP_LINK)).map_err(failed)?;
        Ok(Remover { request: open().map_err(failed)?, announcements })
    }

    /// Removes the interface. Returns when the kernel announces or refuses the removal. A missing interface
    /// is no error. The child keeps the `sockets` open, so that the caller does not wait when it closes them.
    pub fn remove(self, index: u32, name: &str, sockets: &DeferredClose) -> Result<()> {
        let failed = |e| NetError::new(format!("remove interface {name}"), e);
        let (verdict, child_end) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let mut request = Vec::new();
        header::append_request(&mut request, about(index), NLM_F_REQUEST | NLM_F_ACK);
        let mut kept = vec![self.request.as_raw_fd(), child_end.as_raw_fd()];
        kept.extend(sockets.0.iter().map(AsRawFd::as_raw_fd));
        kept.sort_unstable();
        // SAFETY: the child makes system calls on memory prepared above and exits. It takes no lock,
        // allocates nothing and runs none of the parent's destructors.
        let reported = match unsafe { fork() } {
            Ok(ForkResult::Child) => run_child(&self.request, &child_end, &kept, &request),
            Ok(ForkResult::Parent { .. }) => {
                drop(child_end);
                wait(&self.announcements, verdict, index).map_err(failed)?
            }
            // The fork failed, perhaps because of a limit.
            Err(_) => None,
        };
        // Without a report from a child, this process makes the request and waits for the kernel. If a child
        // was killed after its request, the kernel's answer to it is still in the shared socket, and is read
        // as the answer to this request.
        match reported.unwrap_or_else(|| ask(&self.request, &request)) {
            0 | libc::ENODEV => Ok(()),
            errno => Err(failed(Errno::from_raw(errno))),
        }
    }
}

fn about(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::DelLink(message)
}

/// The child: closes every descriptor that a runtime may wait for, except those in `kept` (in ascending
/// order), makes the request and reports the kernel's error number.
fn run_child(netlink: &OwnedFd, verdict: &OwnedFd, kept: &[RawFd], request: &[u8]) -> ! {
    let mut next = 0;
    for fd in kept {
        // SAFETY: nothing in this process uses a descriptor afterwards that is not in `kept`.
        unsafe { close_range(next, fd - 1) };
        next = fd + 1;
    }
    // SAFETY: the same.
    unsafe { close_range(next, RawFd::MAX) };
    let _ = chdir(c"/");
    let _ = write(verdict, &ask(netlink, request).to_ne_bytes());
    // SAFETY: a plain system call, which runs no code of this process.
    unsafe { libc::_exit(0) }
}

/// Sends the request and returns the error number in the kernel's answer, 0 for success. Async-signal-safe.
fn ask(netlink: &OwnedFd, request: &[u8]) -> i32 {
    let mut answer = [0u8; 64];
    let exchanged = send(netlink.as_raw_fd(), request, MsgFlags::empty())
        .and_then(|_| recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()));
    let length = match exchanged {
        Ok(length) => length,
        Err(errno) => return errno as i32,
    };
    let verdict = received(&answer[..length]).next().filter(|message| message.kind == NLMSG_ERROR);
    verdict.and_then(|message| message.errno()).unwrap_or(libc::EIO)
}

/// close_range(2), with a plain loop for kernels before 5.9. Async-signal-safe.
///
/// # Safety
/// Nothing may use the descriptors `first..=last` afterwards.
unsafe fn close_range(first: RawFd, last: RawFd) {
    const HIGHEST_LIKELY: RawFd = 1024;
    if first > last {
        return;
    }
    // SAFETY: the caller no longer uses the descriptors.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            for fd in first..=last.min(HIGHEST_LIKELY) {
                libc::close(fd);
            }
        }
    }
}

/// Waits for the announcement or the child's report, whichever is first. Returns the kernel's error number, 0
/// for success. None if the child ended without a report.
fn wait(announcements: &OwnedFd, verdict: OwnedFd, index: u32) -> Result<Option<i32>, Errno> {
    loop {
        let mut ready = [
            PollFd::new(announcements.as_fd(), PollFlags::POLLIN),
            PollFd::new(verdict.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let heard = ready[0].any().unwrap_or(false);
        let child_reported = ready[1].any().unwrap_or(false);
        if heard && announced(announcements, index) {
            return Ok(Some(0));
        }
        if child_reported {
            let mut errno = [0; size_of::<i32>()];
            let read = File::from(verdict).read_exact(&mut errno);
            return Ok(read.is_ok().then(|| i32::from_ne_bytes(errno)));
        }
    }
}

/// Reads announcements and looks for the removal of the interface. RTM_DELLINK of family AF_BRIDGE only means
/// that the interface has left its bridge. If messages are lost to a full buffer (ENOBUFS), the child's
/// report takes their place.
fn announced(announcements: &OwnedFd, index: u32) -> bool {
    let mut buffer = [0u8; 16384];
    let Ok(length) = recv(announcements.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else {
        return false;
    };
    received(&buffer[..length]).any(|message| {
        // `ifi_family` and `ifi_index` of `struct ifinfomsg`.
        let family = message.body.first().copied().map(i32::from);
        let about = message.body.get(4..8) == Some(&index.to_ne_bytes());
        message.kind == RTM_DELLINK && family == Some(libc::AF_UNSPEC) && about
    })
}
