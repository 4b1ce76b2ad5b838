//! `bridge fdb`: what a bridge knows of who is behind a port.

use cni_conf::cni::mac::MacAddr;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Conn, Result};

/// `bridge fdb add MAC dev PORT master static`: this address is behind this port and nowhere else, in each VLAN that
/// the port is in by now. With the port locked, it is the only one that may send there.
pub async fn pin(conn: &Conn, port: u32, mac: MacAddr) -> Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    let action = || format!("pin {mac} to bridge port {port}");
    conn.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL, action).await
}
