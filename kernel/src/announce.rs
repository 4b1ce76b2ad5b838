//! Announces to the segment which MAC an address belongs to now: gratuitous ARP (RFC 5227 section 3) and
//! unsolicited neighbour advertisements (RFC 4861 section 7.2.6). Without them, neighbour caches that
//! remember the address's last holder keep sending to it.
//!
//! An ADD uses no packet socket. Closing one waits for RCU readers, which takes longer (10 ms) than the rest
//! of an ADD.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use nix::errno::Errno;
use nix::sys::socket::sockopt::Ipv6MulticastHops;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto, setsockopt, socket,
};

use super::probe::ndisc::{ALL_NODES, advertisement};
use super::probe::{announcement, tagged};
use super::{Conn, NetError, PacketInterface, PacketSocket, Result, link};

/// `ip neigh replace ADDRESS lladdr ff:ff:ff:ff:ff:ff dev INTERFACE nud probe`, for an address of the
/// interface itself. The kernel then broadcasts an ARP request for its own address, which is a gratuitous ARP
/// request. Nobody answers, so the kernel repeats it twice, a second apart, and the entry expires by itself.
/// A timer sends the requests. On a bridge with hundreds of pods, each pod gets a copy, and the first request
/// alone would take longer than the rest of an ADD.
pub async fn gratuitous_arp(conn: &Conn, interface: u32, address: Ipv4Addr) -> Result<()> {
    const BROADCAST: [u8; 6] = [0xff; 6];
    let mut message = NeighbourMessage::default();
    message.header.family = netlink_packet_route::AddressFamily::Inet;
    message.header.ifindex = interface;
    message.header.state = NeighbourState::Probe;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(BROADCAST.to_vec()),
    ];
    let action = || format!("announce {address}");
    conn.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, action).await
}

/// `ip link set INTERFACE address MAC` with the MAC that the interface has already. Where `arp_notify` is
/// set, the kernel treats this as a change and sends a gratuitous ARP for every address of the interface.
/// This is for addresses that [`gratuitous_arp`] cannot announce: with several addresses in one subnet, the
/// kernel uses the first as the sender.
pub async fn renew_mac(conn: &Conn, interface: u32, mac: MacAddr) -> Result<()> {
    const ROUNDS: usize = 2;
    let same = link::Change { mac: Some(mac), ..Default::default() };
    for _ in 0..ROUNDS {
        link::change(conn, interface, &same, || "announce addresses".into()).await?;
    }
    Ok(())
}

/// A raw ICMPv6 socket. It stays in the namespace that it was opened in.
#[derive(Debug)]
pub struct AdvertisementSocket(OwnedFd);

/// RFC 4861 section 7.1.2: receivers drop an advertisement whose hop limit shows that a router forwarded it.
const HOP_LIMIT: i32 = 255;

impl AdvertisementSocket {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<AdvertisementSocket> {
        let failed = |e| NetError::new("open an ICMPv6 socket", e);
        let protocol = SockProtocol::IcmpV6;
        let socket =
            socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(failed)?;
        setsockopt(&socket, Ipv6MulticastHops, &HOP_LIMIT).map_err(failed)?;
        Ok(AdvertisementSocket(socket))
    }

    /// Advertises an address of the interface, twice because a frame may be lost.
    pub fn advertise(&self, interface: u32, mac: MacAddr, address: Ipv6Addr) -> Result<()> {
        const ROUNDS: usize = 2;
        let failed = |e: Errno| NetError::new(format!("announce {address}"), e);
        let from = SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, 0));
        let to = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, interface));
        bind(self.0.as_raw_fd(), &from).map_err(failed)?;
        for _ in 0..ROUNDS {
            sendto(self.0.as_raw_fd(), &advertisement(address, mac), &to, MsgFlags::empty())
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// Announces addresses from any MAC, not only the interface's, as a pod behind it does. For a program that
/// keeps its socket: closing it takes the kernel about 10 ms.
#[derive(Debug)]
pub struct FrameAnnouncer(PacketSocket);

impl FrameAnnouncer {
    /// Opens a socket, which receives nothing.
    pub fn open(interface: PacketInterface) -> io::Result<FrameAnnouncer> {
        const NOTHING: u16 = 0;
        Ok(FrameAnnouncer(PacketSocket::open(interface, NOTHING)?))
    }

    /// Sends an ARP announcement or an unsolicited neighbour advertisement, once, with an 802.1q tag if there
    /// is one. Sent because another host claims the address, it is a defence.
    pub fn announce(&self, mac: MacAddr, address: IpAddr, tag: Option<u16>) -> io::Result<()> {
        self.0.send(&tagged(announcement(address, mac), tag))
    }
}
