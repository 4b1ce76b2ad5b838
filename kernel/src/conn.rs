//! A conversation with rtnetlink in one network namespace.
//!
//! The kernel answers a request while it is being sent. So a request for one object, or for a change, is one
//! send and one receive. A list has several parts, of which the kernel makes the next when one is read. They
//! are read from a socket of their own: no part of a list is taken for another answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::libc;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::slim::slim;
use super::whole::{List, whole};
use super::{NetError, Result, header};

/// The longest answer to one request, and the longest part of a list, in bytes. An interface has 2 KiB.
const LONGEST_ANSWER: usize = 32 << 10;

/// A connection to rtnetlink. It stays in the namespace that it was opened in. Clones share the sockets.
#[derive(Clone, Debug)]
pub struct Conn {
    sockets: Arc<Sockets>,
}

#[derive(Debug)]
struct Sockets {
    /// For requests that have one answer.
    single: Socket,
    /// For lists.
    lists: Socket,
    /// The sequence number of the last list.
    listed: AtomicU32,
}

impl Conn {
    /// Opens sockets in the namespace of the calling thread.
    pub fn open() -> Result<Conn> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE).map_err(|e| NetError::io("open a netlink socket", &e))?;
            // With strict checks, the kernel applies the filters of a list. Kernels before 4.20 do not
            // support them.
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(socket)
        };
        let sockets = Sockets { single: open()?, lists: open()?, listed: AtomicU32::new(0) };
        Ok(Conn { sockets: Arc::new(sockets) })
    }

    /// Sends a request that changes something and receives its acknowledgement. `flags` are added to REQUEST
    /// and ACK. `action` names the request in an error.
    pub(super) async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl FnOnce() -> String,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        header::append_request(&mut bytes, message, NLM_F_REQUEST | NLM_F_ACK | flags);
        let answer = self.send(&bytes).and_then(|()| self.receive());
        answer.map(drop).map_err(|refusal| refusal.of(action()))
    }

    /// Requests one object.
    pub(super) async fn get(
        &self,
        message: RouteNetlinkMessage,
        action: impl FnOnce() -> String,
    ) -> Result<RouteNetlinkMessage> {
        let mut bytes = Vec::new();
        header::append_request(&mut bytes, message, NLM_F_REQUEST);
        let answer = self.send(&bytes).and_then(|()| self.receive());
        answer.and_then(|object| object.ok_or(Refusal::Unreadable)).map_err(|refusal| refusal.of(action()))
    }

    /// Sends bytes that hold one request or several.
    pub(super) fn send(&self, requests: &[u8]) -> std::result::Result<(), Refusal> {
        self.sockets.single.send(requests, 0).map(drop).map_err(Refusal::from)
    }

    /// Receives the next answer, which the kernel has queued during send: an object, or none for an
    /// acknowledgement.
    pub(super) fn receive(&self) -> std::result::Result<Option<RouteNetlinkMessage>, Refusal> {
        let mut buffer = Vec::with_capacity(LONGEST_ANSWER);
        self.sockets.single.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        match decode(&buffer).map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(object)) => Ok(Some(object)),
            Some(NetlinkPayload::Error(answer)) => match answer.raw_code() {
                0 => Ok(None),
                code => Err(Refusal::Errno(Errno::from_raw(-code))),
            },
            _ => Err(Refusal::Unreadable),
        }
    }

    /// Requests all objects of a kind, and keeps what `read` takes from each.
    pub(super) async fn dump<T>(
        &self,
        message: RouteNetlinkMessage,
        action: impl Fn() -> String,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        self.dump_at_once(message, action, read)
    }

    /// The same for callers outside a runtime.
    pub(super) fn dump_at_once<T>(
        &self,
        message: RouteNetlinkMessage,
        action: impl Fn() -> String,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut request = Vec::new();
        header::append_request(&mut request, message, NLM_F_REQUEST | NLM_F_DUMP);
        whole(&action, || self.list(&mut request, &read).map_err(|refusal| refusal.of(action())))
    }

    /// A decoded object needs ten times the memory of what is read from it. So each is read before the next
    /// one is decoded. What an earlier list left, whose reader had an error, is skipped. The kernel makes no
    /// other list before that.
    fn list<T>(
        &self,
        request: &mut [u8],
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> std::result::Result<List<T>, Refusal> {
        let sequence = self.sockets.listed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        header::set_sequence(request, sequence);
        self.sockets.lists.send(request, 0)?;
        let mut list = List { objects: Vec::new(), interrupted: false };
        let mut part = Vec::with_capacity(LONGEST_ANSWER);
        loop {
            part.clear();
            self.sockets.lists.recv(&mut part, libc::MSG_DONTWAIT)?;
            let mut rest = part.as_slice();
            while let Ok(header) = NetlinkBuffer::new_checked(rest) {
                let length = header.length() as usize;
                // What cannot be decoded is skipped: a newer kernel may say more than this version knows.
                if let Some(answer) = rest.get(..length).and_then(decode) {
                    let is_left = answer.header.sequence_number != sequence;
                    list.interrupted |= !is_left && answer.header.flags & NLM_F_DUMP_INTR != 0;
                    match answer.payload {
                        NetlinkPayload::Done(_) if is_left && list.interrupted => return Ok(list),
                        _ if is_left => {}
                        NetlinkPayload::InnerMessage(object) => list.objects.extend(read(object)),
                        NetlinkPayload::Error(refusal) if refusal.code.is_some() => {
                            match Errno::from_raw(-refusal.raw_code()) {
                                // Until the earlier list has ended.
                                Errno::EBUSY => list.interrupted = true,
                                errno => return Err(Refusal::Errno(errno)),
                            }
                        }
                        // The kernel refused the list, at once or half way. This is not an empty list.
                        NetlinkPayload::Done(end) if end.code < 0 => {
                            return Err(Refusal::Errno(Errno::from_raw(-end.code)));
                        }
                        NetlinkPayload::Done(_) => return Ok(list),
                        _ => {}
                    }
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Decodes a message. None if that is not possible.
fn decode(message: &[u8]) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    let slim = slim(message);
    NetlinkMessage::deserialize(slim.as_deref().unwrap_or(message)).ok()
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel's error number.
    Errno(Errno),
    /// There is no answer, or it cannot be decoded.
    Unreadable,
}

impl Refusal {
    /// The error of a request. `action` names it.
    pub(super) fn of(self, action: String) -> NetError {
        match self {
            Refusal::Errno(errno) => NetError::new(action, errno),
            Refusal::Unreadable => NetError::NoAnswer { action },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Errno(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

    use super::*;

    #[test]
    fn a_list_that_the_kernel_refuses_is_an_error_and_not_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(async {
            // Lists of links are not filtered by index.
            let mut message = LinkMessage::default();
            message.header.index = 1;
            Conn::open()
                .unwrap()
                .dump(RouteNetlinkMessage::GetLink(message), || "list links".into(), Some)
                .await
        });
        assert_eq!(refused.unwrap_err().to_string(), "list links: Invalid argument");
    }

    #[test]
    fn a_list_between_two_requests_takes_no_answer_of_theirs() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let conn = Conn::open().unwrap();
            let mut lo = LinkMessage::default();
            lo.header.index = 1;
            let lo = || conn.get(RouteNetlinkMessage::GetLink(lo.clone()), || "lo".into());
            let all =
                || conn.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), || "all".into(), Some);
            let (first, list, second) = (lo().await, all().await, lo().await);
            assert!(matches!(first.unwrap(), RouteNetlinkMessage::NewLink(lo) if lo.header.index == 1));
            assert!(!list.unwrap().is_empty());
            assert!(matches!(second.unwrap(), RouteNetlinkMessage::NewLink(lo) if lo.header.index == 1));
            let mut nothing = LinkMessage::default();
            nothing.header.index = u32::MAX >> 1;
            let refused = conn.get(RouteNetlinkMessage::GetLink(nothing), || "look up".into()).await;
            assert_eq!(refused.unwrap_err().to_string(), "look up: No such device");
            assert!(lo().await.is_ok());
        });
    }

    #[test]
    fn what_is_left_of_an_earlier_list_is_no_part_of_the_next_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let conn = Conn::open().unwrap();
            let links = || RouteNetlinkMessage::GetLink(LinkMessage::default());
            // As after an error while it was read.
            let mut request = Vec::new();
            header::append_request(&mut request, links(), NLM_F_REQUEST | NLM_F_DUMP);
            conn.sockets.lists.send(&request, 0).unwrap();
            let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            let listed = conn.dump(addresses, || "list addresses".into(), Some).await.unwrap();
            let is_address = |object: &_| matches!(object, RouteNetlinkMessage::NewAddress(_));
            assert!(!listed.is_empty() && listed.iter().all(is_address), "{listed:?}");
            assert!(!conn.dump(links(), || "list links".into(), Some).await.unwrap().is_empty());
        });
    }

    /// Another namespace for the test alone, with interfaces for a list of several parts, one of which comes
    /// and goes while the list is read. Without the right to make a namespace, there is nothing to try.
    #[test]
    fn interfaces_that_change_while_they_are_listed_are_an_error_and_no_shorter_list() {
        const OTHERS: usize = 60;
        let in_namespace = || {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (conn, other) = (Conn::open().unwrap(), Conn::open().unwrap());
                for number in 0..OTHERS {
                    other.change(bridge(number), CREATE, || "add".into()).await.unwrap();
                }
                let list = async |flip: &dyn Fn()| {
                    let read = |object: RouteNetlinkMessage| {
                        let is_first =
                            matches!(&object, RouteNetlinkMessage::NewLink(link) if link.header.index == 1);
                        is_first.then(flip);
                        Some(object)
                    };
                    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
                    conn.dump(message, || "list links".into(), read).await
                };
                assert_eq!(list(&|| ()).await.unwrap().len(), OTHERS + 1);
                let flips = AtomicU32::new(0);
                let flip = || {
                    let is_there = flips.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                    let (message, flags) = match bridge(OTHERS) {
                        RouteNetlinkMessage::NewLink(link) if is_there => {
                            (RouteNetlinkMessage::DelLink(link), 0)
                        }
                        message => (message, CREATE),
                    };
                    let mut bytes = Vec::new();
                    header::append_request(&mut bytes, message, NLM_F_REQUEST | NLM_F_ACK | flags);
                    other.send(&bytes).unwrap();
                    other.receive().unwrap();
                };
                let error = list(&flip).await.unwrap_err();
                assert!(matches!(error, NetError::Changing { .. }), "{error}");
                let more = flips.into_inner() as usize % 2;
                assert_eq!(list(&|| ()).await.unwrap().len(), OTHERS + 1 + more);
            });
        };
        std::thread::scope(|scope| scope.spawn(in_namespace).join()).unwrap();
    }

    const CREATE: u16 = netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;

    fn bridge(number: usize) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        let kind = vec![LinkInfo::Kind(InfoKind::Bridge)];
        link.attributes = vec![LinkAttribute::IfName(format!("b{number}")), LinkAttribute::LinkInfo(kind)];
        RouteNetlinkMessage::NewLink(link)
    }
}
