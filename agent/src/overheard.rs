//! What an ear remembers until the next turn of the machines that others trust: which MACs the gateways use,
//! and who advertises itself as a router or hands out addresses. Bounded. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem::take;
use std::net::IpAddr;

use cni_conf::cni::args::PodName;
use cni_conf::cni::mac::MacAddr;
use kernel::listen::{Frame, Message};

/// The most MACs of a gateway, and the most speakers, that are remembered until the next turn. Anybody can
/// send each frame from another MAC.
const MOST_MACS: usize = 8;
const MOST_SPEAKERS: usize = 64;

/// An address as a network sees it: with the VLAN of the frame's tag.
pub(crate) type Place = (Option<u16>, IpAddr);

/// The MAC that a frame names, and whether the frame left this node.
pub(crate) type Source = (MacAddr, bool);

/// What somebody claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Router,
    DhcpServer,
}

/// Somebody who advertises itself as a router, or hands out addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Speaker {
    pub(crate) vlan: Option<u16>,
    pub(crate) role: Role,
    /// The source in the Ethernet header.
    pub(crate) mac: MacAddr,
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The source address.
    pub(crate) address: IpAddr,
    /// The MAC that it says it has.
    pub(crate) mac: MacAddr,
    /// The frame left this node: it is the node's own, or a pod's.
    pub(crate) own: bool,
}

/// The sender of a frame, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SentBy {
    /// A pod of this node: the node end of its veth, and its name if the runtime told it.
    Pod(String, Option<PodName>),
    /// This node, or a pod of it with another MAC than its own.
    Node,
    /// Another machine.
    Other,
}

impl SentBy {
    pub(crate) fn pod(&self) -> Option<PodName> {
        if let SentBy::Pod(_, name) = self { name.clone() } else { None }
    }
}

impl fmt::Display for SentBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SentBy::Pod(_, Some(name)) => write!(f, "pod {name}"),
            SentBy::Pod(veth, None) => write!(f, "the pod behind {veth}"),
            SentBy::Node => f.write_str("this node, or a pod of it that has taken another MAC"),
            SentBy::Other => f.write_str("another machine"),
        }
    }
}

/// What was heard since the last turn.
#[derive(Debug, Default)]
pub(crate) struct Overheard {
    /// The MACs that each gateway used, in the order in which they were heard.
    pub(crate) gateways: BTreeMap<Place, Vec<Source>>,
    /// Those who spoke.
    pub(crate) speakers: BTreeMap<Speaker, Said>,
    /// There were more.
    pub(crate) is_full: bool,
    /// Those that are listened to.
    pub(crate) vlans: BTreeSet<Option<u16>>,
}

impl Overheard {
    /// Listens for these gateways, and for speakers in these VLANs.
    pub(crate) fn follow(&mut self, vlans: BTreeSet<Option<u16>>, gateways: &BTreeSet<Place>) {
        self.gateways.retain(|place, _| gateways.contains(place));
        for place in gateways {
            self.gateways.entry(*place).or_default();
        }
        self.vlans = vlans;
    }

    /// What was heard since the last turn.
    pub(crate) fn take(&mut self) -> Overheard {
        let gateways = self.gateways.iter_mut().map(|(place, macs)| (*place, take(macs))).collect();
        let (speakers, is_full) = (take(&mut self.speakers), take(&mut self.is_full));
        Overheard { gateways, speakers, is_full, vlans: BTreeSet::new() }
    }

    /// Takes a frame in. Those of this node and its pods count too.
    pub(crate) fn note(&mut self, frame: &Frame) {
        let vlan = frame.vlan.filter(|vlan| *vlan != 0);
        let mut uses = |address: IpAddr, mac: MacAddr| {
            if let Some(macs) = self.gateways.get_mut(&(vlan, address))
                && !macs.contains(&(mac, frame.own))
                && macs.len() < MOST_MACS
            {
                macs.push((mac, frame.own));
            }
        };
        let (role, address, mac) = match &frame.message {
            Message::Arp { mac, sender, .. } => return uses((*sender).into(), *mac),
            Message::Solicitation { mac, sender: Some(sender), .. } => return uses((*sender).into(), *mac),
            Message::Advertisement { mac, address } => return uses((*address).into(), *mac),
            Message::RouterAdvertisement { mac, source, .. } => {
                uses((*source).into(), *mac);
                (Role::Router, (*source).into(), *mac)
            }
            Message::Dhcp { server } => (Role::DhcpServer, *server, frame.from),
            _ => return,
        };
        let speaker = Speaker { vlan, role, mac: frame.from };
        if !self.vlans.contains(&vlan) {
            return;
        }
        if self.speakers.len() < MOST_SPEAKERS || self.speakers.contains_key(&speaker) {
            self.speakers.insert(speaker, Said { address, mac, own: frame.own });
        } else {
            self.is_full = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dhcp(vlan: Option<u16>, number: u8) -> Frame {
        let message = Message::Dhcp { server: [10, 0, 0, 66].into() };
        Frame { own: false, vlan, from: MacAddr([2, 0, 0, 0, 0, number]), message }
    }

    fn arp(sender: [u8; 4], number: u8) -> Frame {
        let mac = MacAddr([2, 0, 0, 0, 0, number]);
        let target = [10, 0, 0, 5].into();
        let message = Message::Arp { request: false, mac, sender: sender.into(), target, probe: false };
        Frame { own: false, vlan: None, from: mac, message }
    }

    #[test]
    fn only_gateways_and_vlans_of_pods_are_listened_for_and_memory_is_bounded() {
        let mut overheard = Overheard::default();
        overheard.follow([None].into(), &[(None, [10, 0, 0, 1].into())].into());
        for number in 0..=255 {
            overheard.note(&arp([10, 0, 0, 1], number));
            overheard.note(&arp([10, 0, 0, 2], number));
            overheard.note(&dhcp(None, number));
            overheard.note(&dhcp(Some(7), number));
        }
        let taken = overheard.take();
        assert_eq!(taken.gateways.values().map(Vec::len).collect::<Vec<_>>(), [MOST_MACS]);
        assert!(taken.speakers.len() == MOST_SPEAKERS && taken.is_full);
        assert!(taken.speakers.keys().all(|speaker| speaker.vlan.is_none()));
        let next = overheard.take();
        assert!(next.speakers.is_empty() && !next.is_full && next.gateways.len() == 1);
    }
}
