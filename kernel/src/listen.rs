//! What hosts say on a segment about addresses: ARP, neighbour discovery, router advertisements, and the
//! messages of DHCP servers. Nothing is sent, and the interface does not become promiscuous: it hears what is
//! flooded, and what is for its own MAC.
//!
//! A bridge with multicast snooping does not pass on to itself what is for groups that only its ports have
//! joined, such as solicitations for a pod's IPv6 address. The uplink hears these.

mod filter;
mod message;

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, getsockopt, recvmsg, setsockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use tokio::io::unix::AsyncFd;

pub use message::{Frame, Message};

use crate::packet::{bind, unbound};
use crate::watch::{RECEIVED, watch};

/// What is received of a frame: headers, and a dozen options of a router advertisement.
const SNAPSHOT: usize = 512;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A frame that says something about addresses.
    Frame(Frame),
    /// The interface went down, or is gone: until it is up again, nothing is heard. An interface that comes
    /// back under another index takes a new listener.
    Down,
}

/// A packet socket on one interface, with a filter. Its receive buffer is the system's default.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    buffer: Box<[u8; SNAPSHOT]>,
    dropped: u64,
}

/// Where a frame came from.
struct Origin {
    length: usize,
    own: bool,
    vlan: Option<u16>,
}

impl Listener {
    /// Opens a socket in the namespace of the calling thread, on the current runtime.
    pub fn open(ifindex: u32) -> io::Result<Listener> {
        const EVERYTHING: u16 = libc::ETH_P_ALL as u16;
        let ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        let socket = unbound()?;
        filter::program().attach(&socket)?;
        setsockopt(&socket, AuxiliaryData, &1)?;
        // Index 0 would be every interface.
        if ifindex == 0 {
            return Err(Errno::ENODEV.into());
        }
        bind(&socket, ifindex, EVERYTHING)?;
        Ok(Listener { socket: watch(socket)?, buffer: Box::new([0; SNAPSHOT]), dropped: 0 })
    }

    /// The next that is heard. Frames that are malformed are not. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> io::Result<Heard> {
        loop {
            let mut ready = self.socket.ready(RECEIVED).await?;
            let Ok(received) = ready.try_io(|socket| receive(socket.get_ref(), &mut self.buffer[..])) else {
                continue;
            };
            let Some(Origin { length, own, vlan }) = received? else { return Ok(Heard::Down) };
            if let Some(frame) = self.buffer.get(..length).and_then(|frame| Frame::read(frame, own, vlan)) {
                return Ok(Heard::Frame(frame));
            }
        }
    }

    /// How many frames the kernel has dropped so far because the buffer was full.
    pub fn dropped(&mut self) -> io::Result<u64> {
        // The kernel counts from the last question on.
        let [_, dropped] = getsockopt(self.socket.get_ref(), Statistics)?;
        self.dropped += u64::from(dropped);
        Ok(self.dropped)
    }
}

/// The next frame. None if the interface is down.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Origin>> {
    let mut control = cmsg_space!(TpacketAuxdata);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = loop {
        match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            Err(Errno::ENETDOWN) => return Ok(None),
            received => break received?,
        }
    };
    let own = received.address.is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
    let mut messages = received.cmsgs().ok().into_iter().flatten();
    let vlan = messages.find_map(|message| match message {
        ControlMessageOwned::Unknown(unknown) => vlan(&unknown.data_bytes),
        _ => None,
    });
    Ok(Some(Origin { length: received.bytes, own, vlan }))
}

/// The VLAN of a tag that the kernel or the network card has removed from the frame, from `struct
/// tpacket_auxdata`.
fn vlan(auxiliary: &[u8]) -> Option<u16> {
    const STATUS: usize = 0;
    const TAG: usize = 16;
    const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
    let status = u32::from_ne_bytes(auxiliary.get(STATUS..STATUS + 4)?.try_into().ok()?);
    let tag = u16::from_ne_bytes(auxiliary.get(TAG..TAG + 2)?.try_into().ok()?);
    (status & TP_STATUS_VLAN_VALID != 0).then_some(tag & message::VLAN_ID)
}

/// As long as `struct tpacket_auxdata` of linux/if_packet.h.
type TpacketAuxdata = [u32; 5];

/// `struct tpacket_stats` of linux/if_packet.h: received frames, dropped frames.
type TpacketStats = [u32; 2];

sockopt_impl!(
    /// `PACKET_AUXDATA`
    AuxiliaryData,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    i32
);

sockopt_impl!(
    /// `PACKET_STATISTICS`
    Statistics,
    GetOnly,
    libc::SOL_PACKET,
    libc::PACKET_STATISTICS,
    TpacketStats
);
