//! `bridge vlan`: the VLANs of a bridge port, or of the bridge's own device.

use std::collections::BTreeSet;

use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::{self, Link};
use super::{Conn, Result};

/// A VLAN that a bridge port is a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// VLAN id.
    pub vid: u16,
    /// Incoming untagged frames belong to it.
    pub pvid: bool,
    /// Its frames leave untagged.
    pub untagged: bool,
}

impl Membership {
    /// The VLAN's frames pass with their tag.
    pub fn tagged(vid: u16) -> Membership {
        Membership { vid, pvid: false, untagged: false }
    }

    /// The port's access VLAN: untagged in both directions.
    pub fn access(vid: u16) -> Membership {
        Membership { vid, pvid: true, untagged: true }
    }
}

/// The VLANs of one port, or of a bridge's own device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memberships {
    /// Interface index.
    pub port: u32,
    /// Index of its bridge. None for a bridge's own device.
    pub bridge: Option<u32>,
    /// Its VLANs.
    pub vlans: Vec<Membership>,
}

/// `bridge vlan show`: the VLANs of every port of every bridge, and of the bridges' own devices.
pub async fn vlans(conn: &Conn) -> Result<Vec<Memberships>> {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
    let read = |answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(from_message(message)),
        _ => None,
    };
    conn.dump(RouteNetlinkMessage::GetLink(message), || "list VLANs of bridge ports".into(), read).await
}

/// The names of a bridge's ports. If sysfs shows the bridge's namespace, they come from there, which is
/// faster than a list of all interfaces.
pub async fn names(conn: &Conn, bridge: &Link) -> Result<BTreeSet<String>> {
    if link::is_in_sysfs(bridge)
        && let Ok(ports) = std::fs::read_dir(format!("/sys/class/net/{}/brif", bridge.name))
    {
        return Ok(ports.flatten().map(|port| port.file_name().to_string_lossy().into_owned()).collect());
    }
    let links = link::all(conn).await?;
    Ok(links.into_iter().filter(|link| link.master == Some(bridge.index)).map(|link| link.name).collect())
}

fn from_message(message: LinkMessage) -> Memberships {
    let mut port = Memberships { port: message.header.index, bridge: None, vlans: Vec::new() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Controller(index) if index != port.port => port.bridge = Some(index),
            LinkAttribute::AfSpecBridge(settings) => {
                port.vlans.extend(settings.into_iter().filter_map(|setting| match setting {
                    AfSpecBridge::VlanInfo(info) => Some(Membership {
                        vid: info.vid,
                        pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                        untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
                    }),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    port
}

/// The device whose membership changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// A port of a bridge, by interface index.
    Port(u32),
    /// The bridge's own device (`bridge vlan … self`), by interface index.
    Bridge(u32),
}

/// `bridge vlan add dev … vid VID [pvid] [untagged]`, all in one message.
pub async fn join(conn: &Conn, member: Member, vlans: &[Membership]) -> Result<()> {
    let message = message(member, vlans);
    conn.change(RouteNetlinkMessage::SetLink(message), 0, || action("add", member, vlans)).await
}

/// `bridge vlan del dev … vid VID`.
pub async fn leave(conn: &Conn, member: Member, vlans: &[Membership]) -> Result<()> {
    let message = message(member, vlans);
    conn.change(RouteNetlinkMessage::DelLink(message), 0, || action("remove", member, vlans)).await
}

fn action(verb: &str, member: Member, vlans: &[Membership]) -> String {
    let ids: Vec<String> = vlans.iter().map(|vlan| vlan.vid.to_string()).collect();
    format!("{verb} VLAN {} on {member:?}", ids.join(", "))
}

fn message(member: Member, vlans: &[Membership]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    let mut settings = Vec::with_capacity(vlans.len() + 1);
    match member {
        Member::Port(index) => message.header.index = index,
        Member::Bridge(index) => {
            message.header.index = index;
            settings.push(AfSpecBridge::Flags(BridgeFlag::LowerDev));
        }
    }
    for vlan in vlans {
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, vlan.pvid);
        flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
        settings.push(AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid: vlan.vid }));
    }
    message.attributes.push(LinkAttribute::AfSpecBridge(settings));
    message
}
