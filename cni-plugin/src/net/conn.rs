//! One rtnetlink socket in one network namespace.

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::Handle;

use super::{NetError, Result};

/// A connection to rtnetlink. It stays in the namespace that it was opened in; clones share the socket.
#[derive(Clone, Debug)]
pub struct Conn {
    handle: Handle,
}

impl Conn {
    /// Opens a socket in the namespace of the calling thread and drives it on the current runtime.
    pub fn open() -> Result<Conn> {
        let (driver, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(|e| NetError::io("open a netlink socket", &e))?;
        tokio::spawn(driver);
        Ok(Conn { handle })
    }

    /// Sends a request that changes something and waits for its acknowledgement.
    /// `flags` are those beyond REQUEST and ACK; `action` names the request in an error.
    pub(super) async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<()> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, action).await.map(drop)
    }

    /// Asks for one object. An acknowledgement is asked for as well, so that an answer that cannot be decoded
    /// ends the wait instead of hanging it.
    pub(super) async fn get(
        &self,
        message: RouteNetlinkMessage,
        action: impl FnOnce() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK, action).await
    }

    /// Asks for all objects of a kind.
    pub(super) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        action: impl FnOnce() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP, action).await
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        let Ok(mut answers) = self.handle.clone().request(request) else {
            return Err(NetError::NoAnswer { action: action() });
        };
        let mut objects = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(object) => objects.push(object),
                NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                    return Err(NetError::new(action(), Errno::from_raw(-refusal.raw_code())));
                }
                _ => {}
            }
        }
        Ok(objects)
    }
}
