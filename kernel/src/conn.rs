//! One rtnetlink socket in one network namespace.

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::Handle;

use super::{NetError, Result, header};

/// A connection to rtnetlink. It stays in the namespace that it was opened in. Clones share the socket.
#[derive(Clone, Debug)]
pub struct Conn {
    handle: Handle,
}

/// The kernel's answer.
#[derive(Debug, Default)]
struct Answer {
    objects: Vec<RouteNetlinkMessage>,
    /// The list may lack objects or repeat some (`NLM_F_DUMP_INTR`).
    interrupted: bool,
}

impl Conn {
    /// Opens a socket in the namespace of the calling thread and drives it on the current runtime.
    pub fn open() -> Result<Conn> {
        // With strict checks, the kernel applies the filters of a list. Kernels before 4.20 do not support
        // them.
        let (mut driver, handle, _unsolicited) = rtnetlink::new_connection_with_strict_check()
            .or_else(|_| rtnetlink::new_connection())
            .map_err(|e| NetError::io("open a netlink socket", &e))?;
        // The message that ends a list may carry an error.
        driver.set_forward_done(true);
        tokio::spawn(driver);
        Ok(Conn { handle })
    }

    /// Sends a request that changes something and waits for its acknowledgement. `flags` are added to REQUEST
    /// and ACK. `action` names the request in an error.
    pub(super) async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<()> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, action).await.map(drop)
    }

    /// Requests one object. The request asks for an acknowledgement as well, so that the wait ends even if
    /// the answer cannot be decoded.
    pub(super) async fn get(
        &self,
        message: RouteNetlinkMessage,
        action: impl FnOnce() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        Ok(self.exchange(message, NLM_F_REQUEST | NLM_F_ACK, action).await?.objects)
    }

    /// Requests all objects of a kind. Repeats the request if the objects changed while the kernel listed
    /// them.
    pub(super) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        action: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        const ATTEMPTS: usize = 10;
        let mut answer = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, &action).await?;
        for _ in 1..ATTEMPTS {
            if !answer.interrupted {
                break;
            }
            answer = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, &action).await?;
        }
        Ok(answer.objects)
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<Answer> {
        let Ok(mut answers) = self.handle.clone().request(header::request(message, flags)) else {
            return Err(NetError::NoAnswer { action: action() });
        };
        let mut result = Answer::default();
        while let Some(answer) = answers.next().await {
            result.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(object) => result.objects.push(object),
                NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                    return Err(NetError::new(action(), Errno::from_raw(-refusal.raw_code())));
                }
                // The kernel refused the list, at once or half way. This is not an empty list.
                NetlinkPayload::Done(end) if end.code < 0 => {
                    return Err(NetError::new(action(), Errno::from_raw(-end.code)));
                }
                _ => {}
            }
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn a_list_that_the_kernel_refuses_is_an_error_and_not_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(async {
            // Lists of links are not filtered by index.
            let mut message = LinkMessage::default();
            message.header.index = 1;
            Conn::open().unwrap().dump(RouteNetlinkMessage::GetLink(message), || "list links".into()).await
        });
        assert_eq!(refused.unwrap_err().to_string(), "list links: Invalid argument");
    }
}
