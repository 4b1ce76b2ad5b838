//! Several rtnetlink requests in one system call.
//!
//! The kernel executes all of them before the call returns. A SIGKILL therefore comes before all of them or
//! after all of them. The requests also cost one exchange instead of one each.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;

use super::conn::Refusal;
use super::{Conn, Result, header};

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

/// One request. The module of its object builds it, and [`Conn::batch`] sends it.
#[derive(Clone, Debug)]
pub struct NetlinkRequest {
    message: RouteNetlinkMessage,
    flags: u16,
    tolerated: Tolerate,
    action: String,
}

impl NetlinkRequest {
    /// `flags` are added to REQUEST and ACK. `action` names the request in an error.
    pub(super) fn new(
        message: RouteNetlinkMessage,
        flags: u16,
        tolerated: Tolerate,
        action: String,
    ) -> NetlinkRequest {
        NetlinkRequest { message, flags, tolerated, action }
    }

    fn judge(&self, outcome: std::result::Result<(), Refusal>) -> Result<()> {
        let refusal = match outcome {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal.of(self.action.clone()),
        };
        match self.tolerated {
            Tolerate::AlreadyExists if refusal.exists() => Ok(()),
            Tolerate::NotFound if refusal.not_found() => Ok(()),
            _ => Err(refusal),
        }
    }
}

impl Conn {
    /// Sends every request, even after the kernel refused one. Returns the first refusal.
    pub fn batch(&self, requests: &[NetlinkRequest]) -> Result<()> {
        // The socket's receive buffer holds the answers to this many requests.
        const MOST: usize = 64;
        let mut outcome = Ok(());
        for requests in requests.chunks(MOST) {
            self.send(&serialized(requests)).map_err(|refusal| refusal.of(requests[0].action.clone()))?;
            // In the order of the requests.
            for request in requests {
                outcome = outcome.and(request.judge(self.receive().map(drop)));
            }
        }
        outcome
    }
}

fn serialized(requests: &[NetlinkRequest]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
        header::append_request(&mut bytes, request.message.clone(), flags);
    }
    bytes
}
