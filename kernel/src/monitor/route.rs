//! Announcements of rtnetlink (linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h, linux/if_bridge.h).
//! Nothing is copied but the names of a link.

use std::net::IpAddr;

use cni_conf::cni::mac::MacAddr;
use cni_conf::family::Family;
use ipnet::IpNet;

use crate::header::Received;
use crate::monitor::announcement::{Announcement, LinkState};
use crate::netfilter::message::{attribute, attributes, text, u16_at, u32_at};

pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;

const AF_UNSPEC: u8 = libc::AF_UNSPEC as u8;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// Attributes of `struct ifinfomsg`.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BOND_ACTIVE_SLAVE: u16 = 2;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NETCONFA_IFINDEX: u16 = 1;

/// The states of entries that the kernel or a user has added to a forwarding database.
const NUD_PERMANENT: u16 = libc::NUD_PERMANENT;
const NUD_NOARP: u16 = libc::NUD_NOARP;

/// What a message announces, if it is of interest.
pub(super) fn read(message: Received<'_>) -> Option<Announcement> {
    let body = message.body;
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => link(body, message.kind == RTM_DELLINK),
        RTM_NEWADDR | RTM_DELADDR => address(body, message.kind == RTM_DELADDR),
        RTM_NEWROUTE | RTM_DELROUTE => route(body, message.kind == RTM_DELROUTE),
        RTM_NEWNEIGH | RTM_DELNEIGH => neighbour(body, message.kind == RTM_DELNEIGH),
        RTM_NEWRULE | RTM_DELRULE => {
            Some(Announcement::Rule { family: family(*body.first()?)?, gone: message.kind == RTM_DELRULE })
        }
        RTM_NEWNETCONF | RTM_DELNETCONF => netconf(body),
        // struct br_vlan_msg
        RTM_NEWVLAN | RTM_DELVLAN => {
            Some(Announcement::Vlan { index: u32_at(body, 4)?, gone: message.kind == RTM_DELVLAN })
        }
        _ => None,
    }
}

/// `struct ifinfomsg`
fn link(body: &[u8], gone: bool) -> Option<Announcement> {
    const HEADER: usize = 16;
    let (header, rest) = body.split_at_checked(HEADER)?;
    let (index, flags) = (u32_at(header, 4)?, u32_at(header, 8)?);
    match header[0] {
        AF_UNSPEC => {}
        // A bridge announces its ports, and the end of a port as the removal of a link.
        AF_BRIDGE => {
            let bridge = attribute(rest, IFLA_MASTER).and_then(|value| u32_at(value, 0));
            return Some(Announcement::Port { index, bridge, gone });
        }
        _ => return None,
    }
    let mut link = LinkState {
        index,
        name: String::new(),
        gone,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        master: None,
        parent: None,
        mac: None,
        mtu: 0,
        kind: String::new(),
        active_slave: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_ADDRESS => link.mac = mac(value),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_LINK => link.parent = u32_at(value, 0).filter(|parent| *parent != 0),
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => (link.kind, link.active_slave) = info(value),
            // The index is that of another namespace. This attribute follows IFLA_LINK.
            IFLA_LINK_NETNSID => link.parent = None,
            _ => {}
        }
    }
    // Every link has a name: what has none is truncated.
    (!link.name.is_empty()).then_some(Announcement::Link(link))
}

/// The driver, and the active slave of a bond.
fn info(attributes: &[u8]) -> (String, Option<u32>) {
    let kind = attribute(attributes, IFLA_INFO_KIND).map(text).unwrap_or_default();
    let data = attribute(attributes, IFLA_INFO_DATA).filter(|_| kind == "bond");
    let slave = data.and_then(|data| u32_at(attribute(data, IFLA_BOND_ACTIVE_SLAVE)?, 0));
    (kind, slave)
}

/// `struct ifaddrmsg`
fn address(body: &[u8], gone: bool) -> Option<Announcement> {
    const HEADER: usize = 8;
    let (header, rest) = body.split_at_checked(HEADER)?;
    // On a point-to-point link, IFA_ADDRESS is the other end's.
    let value = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
    let net = IpNet::new(ip(family(header[0])?, value)?, header[1]).ok()?;
    Some(Announcement::Address { index: u32_at(header, 4)?, net, gone })
}

/// `struct rtmsg`
fn route(body: &[u8], gone: bool) -> Option<Announcement> {
    const HEADER: usize = 12;
    let (header, rest) = body.split_at_checked(HEADER)?;
    Some(Announcement::Route {
        family: family(header[0])?,
        prefix_length: header[1],
        oif: attribute(rest, RTA_OIF).and_then(|value| u32_at(value, 0)),
        protocol: header[5],
        gone,
    })
}

/// `struct ndmsg`
fn neighbour(body: &[u8], gone: bool) -> Option<Announcement> {
    const HEADER: usize = 12;
    let (header, rest) = body.split_at_checked(HEADER)?;
    let index = u32_at(header, 4)?;
    let mac = attribute(rest, NDA_LLADDR).and_then(mac);
    if header[0] == AF_BRIDGE {
        let master = attribute(rest, NDA_MASTER).and_then(|value| u32_at(value, 0));
        let vlan = attribute(rest, NDA_VLAN).and_then(|value| u16_at(value, 0));
        let learned = u16_at(header, 8)? & (NUD_PERMANENT | NUD_NOARP) == 0;
        return Some(Announcement::Fdb { index, master, mac: mac?, vlan, learned, gone });
    }
    let family = family(header[0])?;
    let address = attribute(rest, NDA_DST).and_then(|value| ip(family, value));
    Some(Announcement::Neighbour { index, address, mac, gone })
}

/// `struct netconfmsg`, padded. The index is negative for `all` and `default`.
fn netconf(body: &[u8]) -> Option<Announcement> {
    const HEADER: usize = 4;
    let (header, rest) = body.split_at_checked(HEADER)?;
    let index = u32_at(attribute(rest, NETCONFA_IFINDEX)?, 0)? as i32;
    Some(Announcement::Netconf { index: u32::try_from(index).ok(), family: family(header[0])? })
}

fn family(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

fn ip(family: Family, value: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
        Family::V6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
    }
}

fn mac(value: &[u8]) -> Option<MacAddr> {
    Some(MacAddr(value.try_into().ok()?))
}

#[cfg(test)]
mod tests;
