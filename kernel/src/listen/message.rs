//! The values that are heard, and how they are read from frames. Nothing here does I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_conf::cni::mac::MacAddr;
use ipnet::Ipv6Net;

use crate::probe::ndisc::{ADVERTISEMENT, SOLICITATION, TARGET_LINK_LAYER_ADDRESS};
use crate::probe::{ARP, IPV6, arp, ndisc};

/// Offset of the EtherType, and the length of a tag.
pub(super) const ETHERTYPE: usize = 12;
pub(super) const TAG: usize = 4;
/// EtherTypes of tags: 802.1q and 802.1ad.
pub(super) const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// The bits of a tag that are the VLAN.
pub(super) const VLAN_ID: u16 = 0x0fff;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const UDP: u8 = 17;
/// The ports that DHCP servers and relays send from.
pub(super) const DHCPV4_SERVER: u16 = 67;
pub(super) const DHCPV6_SERVER: u16 = 547;

pub(super) const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;

/// The prefixes of a router advertisement that are kept. No honest router has more in one.
const MOST_PREFIXES: usize = 8;

/// A frame that says something about addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// It left this node by the interface (`PACKET_OUTGOING`). A pod's frame does so too.
    pub own: bool,
    /// The VLAN of its tag. 0 is a tag without a VLAN.
    pub vlan: Option<u16>,
    /// The source in its Ethernet header.
    pub from: MacAddr,
    /// What it says.
    pub message: Message,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An ARP packet.
    Arp {
        /// A request, not a reply.
        request: bool,
        /// The sender's MAC.
        mac: MacAddr,
        /// The sender's address. Unspecified in a probe.
        sender: Ipv4Addr,
        /// The address that is asked for. The sender's own in an announcement.
        target: Ipv4Addr,
        /// The sender asks whether the target is free, before it uses it (RFC 5227).
        probe: bool,
    },
    /// A neighbour solicitation.
    Solicitation {
        /// The sender's MAC.
        mac: MacAddr,
        /// The sender's address. None in duplicate address detection: the sender asks whether the target is
        /// free, before it uses it (RFC 4862).
        sender: Option<Ipv6Addr>,
        /// The address that is asked for.
        target: Ipv6Addr,
    },
    /// A neighbour advertisement.
    Advertisement {
        /// The MAC that the address belongs to.
        mac: MacAddr,
        /// The address.
        address: Ipv6Addr,
    },
    /// A host asks for routers.
    RouterSolicitation,
    /// A router advertises itself.
    RouterAdvertisement {
        /// The router's MAC.
        mac: MacAddr,
        /// The router's address.
        source: Ipv6Addr,
        /// For how many seconds it is a default router. 0 if it is none.
        lifetime: u16,
        /// The prefixes of the segment, at most eight.
        prefixes: Vec<Ipv6Net>,
    },
    /// A router says that another way is better.
    Redirect {
        /// The router's address.
        source: Ipv6Addr,
        /// Where to send instead.
        target: Ipv6Addr,
        /// The address that it is about.
        destination: Ipv6Addr,
    },
    /// A message of a DHCP server, not of a client.
    Dhcp {
        /// The source: the server's address, or that of a relay. Its family is that of the protocol.
        server: IpAddr,
    },
}

impl Frame {
    /// Reads a frame, or its beginning. None if it says nothing about addresses, or is malformed. `vlan` is
    /// that of a tag outside the frame.
    pub fn read(frame: &[u8], own: bool, vlan: Option<u16>) -> Option<Frame> {
        let from = MacAddr(frame.get(6..ETHERTYPE)?.try_into().ok()?);
        let rest = frame.get(ETHERTYPE..)?;
        let tagged = TAGS.contains(&u16_at(rest, 0)?);
        let vlan = if tagged { Some(vlan.unwrap_or(u16_at(rest, 2)? & VLAN_ID)) } else { vlan };
        let rest = if tagged { rest.get(TAG..)? } else { rest };
        let packet = rest.get(2..)?;
        let message = match u16_at(rest, 0)? {
            ARP => of_arp(packet)?,
            IPV4 => of_ipv4(packet)?,
            IPV6 => of_ipv6(packet, from)?,
            _ => return None,
        };
        Some(Frame { own, vlan, from, message })
    }
}

fn of_arp(packet: &[u8]) -> Option<Message> {
    let arp::Packet { request, mac, sender, target } = arp::read(packet)?;
    Some(Message::Arp { request, mac, sender, target, probe: request && sender.is_unspecified() })
}

fn of_ipv4(packet: &[u8]) -> Option<Message> {
    const FRAGMENT_OFFSET: u16 = 0x1fff;
    const BOOTREPLY: u8 = 2;
    let (version, words) = (packet.first()? >> 4, packet[0] & 0x0f);
    if version != 4 || words < 5 || *packet.get(9)? != UDP || u16_at(packet, 6)? & FRAGMENT_OFFSET != 0 {
        return None;
    }
    let data = udp(packet.get(usize::from(words) * 4..)?, DHCPV4_SERVER)?;
    let server = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?);
    // A relay passes on to servers what clients send, from the same port.
    (*data.first()? == BOOTREPLY).then_some(Message::Dhcp { server: server.into() })
}

fn of_ipv6(packet: &[u8], from: MacAddr) -> Option<Message> {
    /// advertise, reply, reconfigure, relay-reply
    const OF_SERVERS: [u8; 4] = [2, 7, 10, 13];
    if let Some((source, message)) = ndisc::read(packet) {
        return of_neighbour_discovery(source, message, from);
    }
    if packet.first()? >> 4 != 6 || *packet.get(6)? != UDP {
        return None;
    }
    let data = udp(packet.get(40..)?, DHCPV6_SERVER)?;
    OF_SERVERS.contains(data.first()?).then_some(Message::Dhcp { server: ipv6_at(packet, 8)?.into() })
}

/// What is in a datagram from a port.
fn udp(datagram: &[u8], from: u16) -> Option<&[u8]> {
    const HEADER: usize = 8;
    (u16_at(datagram, 0)? == from).then(|| datagram.get(HEADER..))?
}

fn of_neighbour_discovery(source: Ipv6Addr, message: &[u8], from: MacAddr) -> Option<Message> {
    // Options follow a fixed part.
    let mac = |kind, start| link_layer_address(message.get(start..)?, kind);
    Some(match *message.first()? {
        SOLICITATION => Message::Solicitation {
            mac: mac(SOURCE_LINK_LAYER_ADDRESS, 24).unwrap_or(from),
            sender: (!source.is_unspecified()).then_some(source),
            target: ipv6_at(message, 8)?,
        },
        ADVERTISEMENT => Message::Advertisement {
            mac: mac(TARGET_LINK_LAYER_ADDRESS, 24).unwrap_or(from),
            address: ipv6_at(message, 8)?,
        },
        ROUTER_SOLICITATION => Message::RouterSolicitation,
        ROUTER_ADVERTISEMENT => Message::RouterAdvertisement {
            mac: mac(SOURCE_LINK_LAYER_ADDRESS, 16).unwrap_or(from),
            source,
            lifetime: u16_at(message, 6)?,
            prefixes: options(message.get(16..)?).filter_map(prefix).take(MOST_PREFIXES).collect(),
        },
        REDIRECT => {
            Message::Redirect { source, target: ipv6_at(message, 8)?, destination: ipv6_at(message, 24)? }
        }
        _ => return None,
    })
}

/// The options of a message (RFC 4861 section 4.6), up to a truncated one: each with its type and
/// length.
fn options(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?) * 8;
        let (option, behind) = rest.split_at_checked(length).filter(|_| length > 0)?;
        rest = behind;
        Some(option)
    })
}

fn link_layer_address(of_message: &[u8], kind: u8) -> Option<MacAddr> {
    let option = options(of_message).find(|option| option[0] == kind)?;
    Some(MacAddr(option.get(2..8)?.try_into().ok()?))
}

fn prefix(option: &[u8]) -> Option<Ipv6Net> {
    (option[0] == PREFIX_INFORMATION).then(|| Ipv6Net::new(ipv6_at(option, 16)?, option[2]).ok())?
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?.into())
}

#[cfg(test)]
pub(super) mod tests;
