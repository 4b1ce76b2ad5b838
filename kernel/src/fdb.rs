//! `bridge fdb`: the bridge port that a MAC is behind.

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{Conn, NetError, Result};

/// A bridge's entry for a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// Interface index of the port that the MAC is behind, or of the bridge itself.
    pub port: u32,
    /// The origin of the entry.
    pub kind: Kind,
    /// No frame that arrives at another port moves the MAC (`sticky`).
    pub sticky: bool,
}

/// The origin of a forwarding database entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel added it: the MAC of the port, or of the bridge.
    Local,
    /// A user added it.
    Static,
    /// The bridge learned it from a frame. It expires some time after the last frame.
    Learned,
}

/// `bridge fdb add MAC dev PORT master static sticky`: pins the MAC to this port in each VLAN that the port
/// is in now. Frames that arrive at another port do not move it. (Kernels before 4.20 have no `sticky`, and a
/// frame moves it.) If the port is locked, only this MAC may send there. The error [exists](NetError::exists)
/// if the bridge knows the MAC already.
pub async fn pin(conn: &Conn, port: u32, mac: MacAddr) -> Result<()> {
    add(conn, port, mac, NLM_F_CREATE | NLM_F_EXCL).await
}

/// `bridge fdb replace …`: pins a MAC again that is known to be behind this port and no other.
pub async fn pin_again(conn: &Conn, port: u32, mac: MacAddr) -> Result<()> {
    add(conn, port, mac, NLM_F_CREATE | NLM_F_REPLACE).await
}

async fn add(conn: &Conn, port: u32, mac: MacAddr, flags: u16) -> Result<()> {
    let mut message = of(mac);
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
    let action = || format!("pin {mac} to bridge port {port}");
    conn.change(RouteNetlinkMessage::NewNeighbour(message), flags, action).await
}

/// `bridge fdb del MAC dev PORT master`. A missing entry is no error.
pub async fn remove(conn: &Conn, port: u32, mac: MacAddr) -> Result<()> {
    let mut message = of(mac);
    message.header.ifindex = port;
    message.header.flags = NeighbourFlags::Controller;
    let action = || format!("bridge fdb del {mac}");
    match conn.change(RouteNetlinkMessage::DelNeighbour(message), 0, action).await {
        Err(e) if e.not_found() => Ok(()),
        other => other,
    }
}

/// `bridge fdb get MAC br BRIDGE [vlan VID]`, with `vid` on a bridge that filters VLANs. None if the bridge
/// does not know the MAC, or the kernel does not support the request (before Linux 5.0).
pub async fn entry(conn: &Conn, bridge: u32, mac: MacAddr, vid: Option<u16>) -> Result<Option<FdbEntry>> {
    let mut message = of(mac);
    message.attributes.push(NeighbourAttribute::Controller(bridge));
    message.attributes.extend(vid.map(NeighbourAttribute::Vlan));
    let result =
        conn.get(RouteNetlinkMessage::GetNeighbour(message), || format!("bridge fdb get {mac}")).await;
    let answer = match result {
        Err(NetError::Kernel { errno: Errno::ENOENT | Errno::EOPNOTSUPP, .. }) => return Ok(None),
        other => other?,
    };
    let RouteNetlinkMessage::NewNeighbour(message) = answer else { return Ok(None) };
    let kind = match message.header.state {
        NeighbourState::Permanent => Kind::Local,
        NeighbourState::Noarp => Kind::Static,
        _ => Kind::Learned,
    };
    let sticky = message.header.flags.contains(NeighbourFlags::Sticky);
    Ok(Some(FdbEntry { port: message.header.ifindex, kind, sticky }))
}

fn of(mac: MacAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}
