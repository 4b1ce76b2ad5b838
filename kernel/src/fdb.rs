//! `bridge fdb`: behind which port of a bridge a MAC is.

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{Conn, NetError, Result};

/// What the bridge knows of a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The port that it is behind, or the bridge itself, by interface index.
    pub port: u32,
    /// How the bridge came to know.
    pub kind: Kind,
    /// No frame that comes in elsewhere moves it (`sticky`).
    pub sticky: bool,
}

/// How a bridge came to know a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The kernel's own entry: the MAC of the port, or of the bridge.
    Local,
    /// Somebody has set it.
    Static,
    /// From a frame, and forgotten some time after the last one.
    Learned,
}

/// `bridge fdb add MAC dev PORT master static sticky`: this MAC is behind this port and nowhere else, in each
/// VLAN that the port is in by now, whatever frames say that come in elsewhere (kernels before 4.20 have no
/// `sticky`: there a frame moves it). With the port locked, it is the only one that may send there. An error
/// that [exists](NetError::exists) where the bridge knows the MAC already.
pub async fn pin(conn: &Conn, port: u32, mac: MacAddr) -> Result<()> {
    add(conn, port, mac, NLM_F_CREATE | NLM_F_EXCL).await
}

/// `bridge fdb replace …`: the same for a MAC that is known to be behind this port, and nobody else's.
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

/// `bridge fdb del MAC dev PORT master`; one that is gone is fine.
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

/// `bridge fdb get MAC br BRIDGE [vlan VID]`; `vid` on a bridge that filters. None if the bridge does not
/// know the MAC, or the kernel cannot be asked (before Linux 5.0).
pub async fn entry(conn: &Conn, bridge: u32, mac: MacAddr, vid: Option<u16>) -> Result<Option<Entry>> {
    let mut message = of(mac);
    message.attributes.push(NeighbourAttribute::Controller(bridge));
    message.attributes.extend(vid.map(NeighbourAttribute::Vlan));
    let told = conn.get(RouteNetlinkMessage::GetNeighbour(message), || format!("bridge fdb get {mac}")).await;
    let answers = match told {
        Err(NetError::Kernel { errno: Errno::ENOENT | Errno::EOPNOTSUPP, .. }) => return Ok(None),
        other => other?,
    };
    Ok(answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
        let kind = match message.header.state {
            NeighbourState::Permanent => Kind::Local,
            NeighbourState::Noarp => Kind::Static,
            _ => Kind::Learned,
        };
        let sticky = message.header.flags.contains(NeighbourFlags::Sticky);
        Some(Entry { port: message.header.ifindex, kind, sticky })
    }))
}

fn of(mac: MacAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}
