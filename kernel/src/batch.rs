//! Several rtnetlink requests in one system call.
//!
//! The kernel executes all of them before the call returns. A SIGKILL therefore comes before all of them or
//! after all of them. The requests also cost one exchange instead of one each.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use super::{NetError, Result, header};

/// A refusal that counts as success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tolerate {
    /// None does.
    Nothing,
    /// The object exists already.
    AlreadyExists,
    /// The object does not exist any more.
    NotFound,
}

/// One request. The module of its object builds it, and [`Batch::send`] sends it.
#[derive(Clone, Debug)]
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    tolerated: Tolerate,
    action: String,
}

impl Request {
    /// `flags` are added to REQUEST and ACK. `action` names the request in an error.
    pub(super) fn new(
        message: RouteNetlinkMessage,
        flags: u16,
        tolerated: Tolerate,
        action: String,
    ) -> Request {
        Request { message, flags, tolerated, action }
    }

    fn judge(&self, code: i32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let refusal = NetError::new(self.action.clone(), Errno::from_raw(-code));
        match self.tolerated {
            Tolerate::AlreadyExists if refusal.exists() => Ok(()),
            Tolerate::NotFound if refusal.not_found() => Ok(()),
            _ => Err(refusal),
        }
    }
}

/// A socket for batches. It stays in the namespace that it was opened in.
#[derive(Debug)]
pub struct Batch(OwnedFd);

impl Batch {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Batch> {
        let failed = |e| NetError::new("open a netlink socket", e);
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
                .map_err(failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(Batch(socket))
    }

    /// Sends every request, even after the kernel refused one. Returns the first refusal.
    pub fn send(&self, requests: &[Request]) -> Result<()> {
        // The socket's receive buffer holds the answers to this many requests.
        const MOST: usize = 64;
        let mut outcome = Ok(());
        for requests in requests.chunks(MOST) {
            let failed = |e| NetError::new(requests[0].action.clone(), e);
            send(self.0.as_raw_fd(), &serialized(requests), MsgFlags::empty()).map_err(failed)?;
            for request in requests {
                outcome = outcome.and(self.answer(request));
            }
        }
        outcome
    }

    /// The answer to the next request. The kernel answers all requests during send, in order.
    fn answer(&self, request: &Request) -> Result<()> {
        let mut buffer = [0u8; 4096];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)
            .map_err(|e| NetError::new(request.action.clone(), e))?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length])
            .map(|answer| answer.payload)
        {
            Ok(NetlinkPayload::Error(answer)) => request.judge(answer.raw_code()),
            _ => Err(NetError::NoAnswer { action: request.action.clone() }),
        }
    }
}

fn serialized(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
        header::append_request(&mut bytes, request.message.clone(), flags);
    }
    bytes
}
