//! `conntrack`: tracked connections by their port on the node.
//!
//! A UDP flow keeps using its entry as long as packets arrive, even after the rules have changed.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use super::Result;
use super::netfilter::message::{MessageBuilder, attribute, attributes};
use super::netfilter::{CTNETLINK, NetfilterSocket};
use crate::netconf::number;
use cni_conf::family::Family;

/// `IPCTNL_MSG_CT_GET`, `_DELETE`
const GET: u16 = CTNETLINK << 8 | 1;
const DELETE: u16 = CTNETLINK << 8 | 2;

/// `CTA_*`
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The destination of its first packet.
    pub destination: IpAddr,
    /// The address that answers. It differs from the destination after DNAT.
    pub answers: IpAddr,
    family: Family,
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Whether a UDP entry to one of these ports may exist in the namespace of the calling thread. The text of a
/// short list is quick to read. [`to_port`] locks each bucket of the table in turn, which takes 10 ms however
/// few entries there are.
pub fn may_have_udp(ports: &[u16]) -> bool {
    const SHORT: usize = 4000;
    match count() {
        Some(0) => false,
        // `ipv4 2 udp 17 29 src=192.0.2.9 dst=192.0.2.1 sport=7777 dport=53 …`, then the reply tuple.
        Some(..SHORT) => fs::read_to_string("/proc/thread-self/net/nf_conntrack").ok().is_none_or(|list| {
            let to_port = |line: &str| {
                let port = line.split(' ').find_map(|word| word.strip_prefix("dport=")?.parse().ok());
                port.is_some_and(|port: u16| ports.contains(&port))
            };
            list.lines().any(|line| line.contains(" udp ") && to_port(line))
        }),
        _ => true,
    }
}

/// `conntrack -C`, without the ctnetlink module. None if the kernel offers neither file. On a node with many
/// pods, looking up the sysctl is slow, so only kernels without `CONFIG_NF_CONNTRACK_PROCFS` use it.
fn count() -> Option<usize> {
    let sysctl =
        || fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?.trim().parse().ok();
    statistics().or_else(sysctl)
}

/// The file has a line of names, then one line for each processor. The first number of a line counts all
/// entries.
fn statistics() -> Option<usize> {
    let mut text = [0; 1024];
    let length = File::open("/proc/thread-self/net/stat/nf_conntrack").ok()?.read(&mut text).ok()?;
    let first = std::str::from_utf8(&text[..length]).ok()?.lines().nth(1)?;
    usize::from_str_radix(first.split(' ').next()?, 16).ok()
}

/// `conntrack -L -p PROTOCOL --orig-port-dst PORT` of one family. Linux 5.8 filters the list itself. Older
/// kernels send all entries.
pub fn to_port(socket: &NetfilterSocket, family: Family, protocol: u8, port: u16) -> Result<Vec<Connection>> {
    let mut message = MessageBuilder::new(GET, NLM_F_REQUEST | NLM_F_DUMP, 1, number(family), 0);
    message.nested(TUPLE_ORIGINAL, |tuple| {
        tuple.nested(TUPLE_PROTOCOL, |part| {
            part.bytes(PROTOCOL_NUMBER, &[protocol]).bytes(DESTINATION_PORT, &port.to_be_bytes());
        });
    });
    message.nested(FILTER, |filter| {
        const ORIGINAL_FLAGS: u16 = 1;
        const REPLY_FLAGS: u16 = 2;
        /// `CTA_FILTER_FLAG(CTA_PROTO_NUM)` and the flag of the destination port.
        const BY_PORT: u32 = 1 << 3 | 1 << 5;
        filter.bytes(ORIGINAL_FLAGS, &BY_PORT.to_ne_bytes()).bytes(REPLY_FLAGS, &0u32.to_ne_bytes());
    });
    let entries = socket.request(message, || format!("list connections to port {port}"))?;
    let wanted = |entry: &&Vec<u8>| {
        let part = |kind| {
            attribute(entry, TUPLE_ORIGINAL)
                .and_then(|tuple| attribute(tuple, TUPLE_PROTOCOL))
                .and_then(|tuple| attribute(tuple, kind))
        };
        part(PROTOCOL_NUMBER) == Some(&[protocol]) && part(DESTINATION_PORT) == Some(&port.to_be_bytes())
    };
    Ok(entries.iter().filter(wanted).filter_map(|entry| decode(entry, family)).collect())
}

fn decode(entry: &[u8], family: Family) -> Option<Connection> {
    let original = attribute(entry, TUPLE_ORIGINAL)?;
    Some(Connection {
        destination: address(original, Side::Destination)?,
        answers: address(attribute(entry, TUPLE_REPLY)?, Side::Source)?,
        family,
        original: original.to_vec(),
        zone: attribute(entry, ZONE).map(<[u8]>::to_vec),
    })
}

enum Side {
    Source,
    Destination,
}

/// `CTA_IP_V4_SRC`, `_V4_DST`, `_V6_SRC`, `_V6_DST`
fn address(tuple: &[u8], side: Side) -> Option<IpAddr> {
    let kinds = match side {
        Side::Source => [1, 3],
        Side::Destination => [2, 4],
    };
    let (_, value) = attributes(attribute(tuple, TUPLE_IP)?).find(|(kind, _)| kinds.contains(kind))?;
    match value.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
    }
}

/// `conntrack -D`. A missing entry is no error.
pub fn delete(socket: &NetfilterSocket, entry: &Connection) -> Result<()> {
    let mut message = MessageBuilder::new(DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, number(entry.family), 0);
    message.nested(TUPLE_ORIGINAL, |tuple| {
        tuple.raw(&entry.original);
    });
    if let Some(zone) = &entry.zone {
        message.bytes(ZONE, zone);
    }
    match socket.request(message, || format!("delete a conntrack entry for {}", entry.destination)) {
        Err(e) if e.not_found() => Ok(()),
        other => other.map(drop),
    }
}
