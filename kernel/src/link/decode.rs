//! Decodes `RTM_NEWLINK` into a [`Link`].

use cni_conf::cni::mac::MacAddr;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BondFailOverMac, BondMode, BridgePortState, BridgeStpState,
    InfoBond, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State, VlanProtocol,
};

use crate::link::{Bond, Bridge, Kind, Link, PortFlags};

/// The interface that an answer describes.
pub(super) fn from_message(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        promisc: flags.contains(LinkFlags::Promisc),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = <[u8; 6]>::try_from(mac).ok().map(MacAddr),
            LinkAttribute::PermAddress(mac) => {
                link.permanent_mac = <[u8; 6]>::try_from(mac).ok().map(MacAddr)
            }
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.oper_up = state == State::Up,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.parent = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.parent_namespace = Some(id),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::AfSpecUnspec(families) => {
                read_settings(&mut link, &families);
            }
            LinkAttribute::LinkInfo(infos) => read_info(&mut link, infos),
            _ => {}
        }
    }
    // An index in another namespace is no parent here. The other end of a veth can be in another namespace.
    if link.parent_namespace.is_some() && matches!(link.kind, Kind::Vlan { .. }) {
        link.parent = None;
    }
    link
}

fn read_settings(link: &mut Link, families: &[AfSpecUnspec]) {
    for family in families {
        match family {
            AfSpecUnspec::Inet(settings) => settings.iter().for_each(|setting| {
                if let AfSpecInet::DevConf(conf) = setting {
                    link.arp_ignore = Some(conf.arp_ignore);
                    link.rp_filter = Some(conf.rp_filter);
                }
            }),
            AfSpecUnspec::Inet6(settings) => settings.iter().for_each(|setting| {
                if let AfSpecInet6::DevConf(conf) = setting {
                    link.accept_ra = Some(conf.accept_ra);
                    link.disable_ipv6 = Some(conf.disable_ipv6);
                }
            }),
            _ => {}
        }
    }
}

fn read_info(link: &mut Link, infos: Vec<LinkInfo>) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = Kind::Bridge(Bridge::default()),
            LinkInfo::Kind(InfoKind::Veth) => link.kind = Kind::Veth,
            LinkInfo::Kind(kind) => link.kind = Kind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(options)) => link.kind = Kind::Bridge(read_bridge(&options)),
            LinkInfo::Data(InfoData::Vlan(options)) => link.kind = read_vlan(&options),
            LinkInfo::Data(InfoData::Bond(options)) => link.kind = Kind::Bond(read_bond(&options)),
            LinkInfo::PortData(InfoPortData::BridgePort(options)) => read_port(link, &options),
            _ => {}
        }
    }
}

fn read_bridge(options: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge::default();
    for option in options {
        match option {
            InfoBridge::ForwardDelay(ticks) => bridge.forward_delay = *ticks,
            InfoBridge::StpState(state) => bridge.stp = *state != BridgeStpState::Disabled,
            InfoBridge::MulticastSnooping(on) => bridge.multicast_snooping = *on,
            InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = *on,
            InfoBridge::VlanDefaultPvid(vid) => bridge.default_pvid = *vid,
            _ => {}
        }
    }
    bridge
}

fn read_vlan(options: &[InfoVlan]) -> Kind {
    let (mut vid, mut ethertype) = (0, 0x8100);
    for option in options {
        match option {
            InfoVlan::Id(id) => vid = *id,
            InfoVlan::Protocol(VlanProtocol::Ieee8021Q) => ethertype = 0x8100,
            InfoVlan::Protocol(VlanProtocol::Ieee8021Ad) => ethertype = 0x88a8,
            _ => {}
        }
    }
    Kind::Vlan { id: vid, protocol: ethertype }
}

fn read_bond(options: &[InfoBond]) -> Bond {
    let mut bond = Bond::default();
    for option in options {
        match option {
            InfoBond::Mode(mode) => bond.mode = bond_mode(*mode),
            InfoBond::FailOverMac(policy) => {
                bond.fail_over_mac = match policy {
                    BondFailOverMac::None => "none".into(),
                    BondFailOverMac::Active => "active".into(),
                    BondFailOverMac::Follow => "follow".into(),
                    other => u8::from(*other).to_string(),
                }
            }
            _ => {}
        }
    }
    bond
}

fn bond_mode(mode: BondMode) -> String {
    match mode {
        BondMode::BalanceRr => "balance-rr".into(),
        BondMode::ActiveBackup => "active-backup".into(),
        BondMode::BalanceXor => "balance-xor".into(),
        BondMode::Broadcast => "broadcast".into(),
        BondMode::Ieee8023Ad => "802.3ad".into(),
        BondMode::BalanceTlb => "balance-tlb".into(),
        BondMode::BalanceAlb => "balance-alb".into(),
        other => u8::from(other).to_string(),
    }
}

fn read_port(link: &mut Link, options: &[InfoBridgePort]) {
    let mut port = PortFlags::default();
    for option in options {
        match option {
            InfoBridgePort::State(state) => link.forwarding = *state == BridgePortState::Forwarding,
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Locked(on) => port.locked = *on,
            _ => {}
        }
    }
    link.port = Some(port);
}
