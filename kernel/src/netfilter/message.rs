//! Netlink messages of netfilter: `struct nlmsghdr`, `struct nfgenmsg`, attributes. `netconf` uses them too,
//! because its header is also a family in four bytes.

use netlink_packet_core::NLM_F_DUMP_INTR;
use nix::errno::Errno;

use crate::header::{self, NLMSG_ERROR, received};

/// `struct nfgenmsg`
const GENERIC: usize = 4;
/// `struct nlattr`
const ATTRIBUTE: usize = 4;

const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

const NLMSG_DONE: u16 = 3;
/// Lower numbers are netlink's control messages.
const NLMSG_MIN_TYPE: u16 = 0x10;

/// A message under construction.
#[derive(Debug)]
pub struct MessageBuilder {
    bytes: Vec<u8>,
}

impl MessageBuilder {
    /// A message of a subsystem. The upper byte of `kind` is the subsystem, the lower byte is the message
    /// type. Only batches use `resource`.
    pub fn new(kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) -> MessageBuilder {
        let mut bytes = Vec::with_capacity(256);
        header::append(&mut bytes, kind, flags, sequence);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        MessageBuilder { bytes }
    }

    /// An attribute of plain bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut MessageBuilder {
        let length = (ATTRIBUTE + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// A number in network byte order, as netfilter uses it.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut MessageBuilder {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string with its closing NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut MessageBuilder {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute that contains attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut MessageBuilder)) -> &mut MessageBuilder {
        let start = self.bytes.len();
        self.bytes(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Attributes from the kernel, unchanged.
    pub fn raw(&mut self, attributes: &[u8]) -> &mut MessageBuilder {
        self.bytes.extend_from_slice(attributes);
        self.pad();
        self
    }

    /// The complete message with its length.
    pub fn finish(mut self) -> Vec<u8> {
        header::set_length(&mut self.bytes);
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The sequence number of the request.
    pub sequence: u32,
    /// Why the kernel refused the request. None for an object or an acknowledgement.
    pub error: Option<Errno>,
    /// The list that it is part of may lack objects or repeat some (`NLM_F_DUMP_INTR`).
    pub interrupted: bool,
    /// The attributes of an object.
    pub payload: Vec<u8>,
}

/// Splits received bytes into the kernel's answers.
pub fn answers(bytes: &[u8]) -> Vec<Answer> {
    let mut parsed = Vec::new();
    for message in received(bytes) {
        let answer = |error, payload: &[u8]| Answer {
            sequence: message.sequence,
            error,
            interrupted: message.flags & NLM_F_DUMP_INTR != 0,
            payload: payload.to_vec(),
        };
        match message.kind {
            NLMSG_ERROR | NLMSG_DONE => {
                let errno = message.errno().filter(|errno| *errno != 0);
                parsed.push(answer(errno.map(Errno::from_raw), &[]));
            }
            NLMSG_MIN_TYPE.. => parsed.push(answer(None, message.body.get(GENERIC..).unwrap_or_default())),
            _ => {}
        }
    }
    parsed
}

/// The attributes of a message or of another attribute, in order: type without flags, and value.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let size = (u16_at(rest, 0)? as usize).max(ATTRIBUTE);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(ATTRIBUTE..size)?;
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub fn attribute(within: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(within).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in network byte order.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// A string without its closing NUL.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// A number in the machine's byte order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A number in the machine's byte order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let mut message = MessageBuilder::new(0x0a03, 5, 7, 1, 0);
        message.text(1, "abc").nested(2, |inner| {
            inner.number(1, 0xfffe).bytes(3, &[9, 8, 7]);
        });
        let bytes = message.finish();
        assert_eq!(bytes[..4], (bytes.len() as u32).to_ne_bytes());
        let parsed = answers(&bytes);
        assert_eq!((parsed.len(), parsed[0].sequence, parsed[0].error), (1, 7, None));
        let payload = &parsed[0].payload;
        assert_eq!(attribute(payload, 1).map(text).as_deref(), Some("abc"));
        let nested = attribute(payload, 2).unwrap();
        assert_eq!(attribute(nested, 1).and_then(number), Some(0xfffe));
        assert_eq!(attribute(nested, 3), Some(&[9, 8, 7][..]));
        assert_eq!(attributes(nested).count(), 2);
    }

    #[test]
    fn truncated_bytes_yield_no_attributes() {
        let mut message = MessageBuilder::new(0x0a03, 5, 7, 1, 0);
        message.bytes(1, &[1; 40]);
        let bytes = message.finish();
        for length in 0..bytes.len() {
            for answer in answers(&bytes[..length]) {
                assert_eq!(attribute(&answer.payload, 1), None);
            }
        }
    }
}
