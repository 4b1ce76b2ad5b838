//! `struct nlmsghdr`, the header of every netlink message: of requests, and in what the kernel answers.

use netlink_packet_core::{Emitable, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

/// Its length.
pub const HEADER: usize = 16;

/// The message is the kernel's error number, or its acknowledgement if that is 0.
pub const NLMSG_ERROR: u16 = 2;

/// Appends a header. [`set_length`] completes it.
pub fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32) {
    let mut header = header(flags);
    header.message_type = kind;
    header.sequence_number = sequence;
    let start = bytes.len();
    bytes.resize(start + HEADER, 0);
    header.emit(&mut bytes[start..]);
}

/// Puts the length of a whole message into its header.
pub fn set_length(message: &mut [u8]) {
    let length = message.len() as u32;
    NetlinkBuffer::new(message).set_length(length);
}

/// Puts a sequence number into the header of a message.
pub fn set_sequence(message: &mut [u8], sequence: u32) {
    NetlinkBuffer::new(message).set_sequence_number(sequence);
}

/// A request of rtnetlink. Type and length are still missing: the serialization adds them.
pub fn request(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    NetlinkMessage::new(header(flags), NetlinkPayload::from(message))
}

/// Appends a request of rtnetlink, padded for one that follows.
pub fn append_request(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
    let mut request = request(message, flags);
    request.finalize();
    let (start, length) = (bytes.len(), request.buffer_len());
    bytes.resize(start + length.next_multiple_of(4), 0);
    request.serialize(&mut bytes[start..start + length]);
}

fn header(flags: u16) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header
}

/// One message from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// The sequence number of the request.
    pub sequence: u32,
    /// The port id of the socket whose request caused the message. 0 for the kernel.
    pub port: u32,
    /// What follows the header. Empty if the message is cut.
    pub body: &'a [u8],
}

impl Received<'_> {
    /// The kernel's error number, 0 for success. None if the message has no such number.
    pub fn errno(&self) -> Option<i32> {
        self.body.first_chunk().map(|code| i32::from_ne_bytes(*code).wrapping_neg())
    }
}

/// Splits received bytes into messages. Async-signal-safe.
pub fn received(mut rest: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = NetlinkBuffer::new(rest.get(..HEADER)?);
        let size = (header.length() as usize).max(HEADER);
        let message = Received {
            kind: header.message_type(),
            flags: header.flags(),
            sequence: header.sequence_number(),
            port: header.port_number(),
            body: rest.get(HEADER..size).unwrap_or_default(),
        };
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
