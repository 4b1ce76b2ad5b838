//! Machines that take the place of the gateway, or advertise themselves as routers or DHCP servers, though
//! no network of pods has them: what is told of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cni_conf::cni::mac::MacAddr;
use vlan_bridge::watched::Watched;

use crate::attempts::Time;
use crate::overheard::{Overheard, Place, Role, Said, SentBy, Source, Speaker};
use crate::report::Report;

/// How often changes of one gateway's MAC are told at most: two machines may answer in turn.
const EACH_GATEWAY: Duration = Duration::from_secs(60);
/// A router is judged when the gateways' MACs are known, or after this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// A machine of which nothing was heard for this long is told again. Routers advertise each half an hour at
/// least (RFC 4861 section 6.2.1).
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// The most speakers that are remembered. Anybody can send frames of many: their reports must leave room
/// among the last ones that the agent shows.
const MOST: usize = 16;

/// The bridge's port and the VLAN of its tag.
type UplinkVlan = (String, Option<u16>);

/// What is known of the pods' networks, and who was heard there.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Where pods are, and whether a DHCP server is expected there.
    expects_dhcp: BTreeMap<UplinkVlan, bool>,
    pods: BTreeMap<MacAddr, SentBy>,
    gateways: BTreeMap<(String, Place), Gateway>,
    speakers: BTreeMap<(String, Speaker), KnownSpeaker>,
    /// Whether it was told that there are too many.
    is_full: bool,
}

#[derive(Debug)]
struct Gateway {
    /// The MAC that was told last, or heard first.
    mac: MacAddr,
    told: Option<Time>,
}

#[derive(Debug)]
struct KnownSpeaker {
    first: Time,
    last: Time,
    said: Said,
    is_judged: bool,
}

impl Strangers {
    /// Takes over what a pass has seen.
    pub(crate) fn follow(&mut self, watched: &Watched) {
        self.expects_dhcp.clear();
        let mut places = BTreeSet::new();
        for network in &watched.networks {
            let segment = (network.uplink.clone(), network.vlan);
            *self.expects_dhcp.entry(segment).or_default() |= network.expects_dhcp;
            let of_network = |gateway: &IpAddr| (network.uplink.clone(), (network.vlan, *gateway));
            places.extend(network.gateways.iter().map(of_network));
        }
        self.gateways.retain(|place, _| places.contains(place));
        let pods = watched.bridges.iter().flat_map(|bridge| &bridge.pods);
        self.pods = pods.map(|pod| (pod.mac, SentBy::Pod(pod.veth.clone(), pod.pod.clone()))).collect();
    }

    /// Takes in what was heard on an uplink since the last turn. Returns what to tell.
    pub(crate) fn turn(&mut self, uplink: &str, heard: Overheard, now: Time) -> Vec<Report> {
        let mut reports = Vec::new();
        // Gateways of which nothing was heard yet.
        let mut unknown = BTreeSet::new();
        for ((vlan, address), macs) in heard.gateways {
            let key = (uplink.to_owned(), (vlan, address));
            for source in macs {
                reports.extend(self.gateway(&key, source, now));
            }
            if !self.gateways.contains_key(&key) {
                unknown.insert(vlan);
            }
        }
        let mut is_full = heard.is_full;
        for (speaker, said) in heard.speakers {
            let key = (uplink.to_owned(), speaker);
            if let Some(known) = self.speakers.get_mut(&key) {
                (known.last, known.said) = (now, said);
            } else if self.speakers.len() < MOST {
                self.speakers.insert(key, KnownSpeaker { first: now, last: now, said, is_judged: false });
            } else {
                is_full = true;
            }
        }
        reports.extend(self.judge(uplink, &unknown, now));
        if is_full && !self.is_full {
            reports.push(Report::many_strangers(MOST));
        }
        self.is_full |= is_full;
        reports
    }

    /// Forgets those who are silent.
    pub(crate) fn forget(&mut self, now: Time) {
        self.speakers.retain(|_, known| known.last + FORGOTTEN > now);
        self.is_full &= self.speakers.len() >= MOST;
    }

    fn gateway(&mut self, key: &(String, Place), (mac, own): Source, now: Time) -> Option<Report> {
        // Another machine can put a pod's MAC into its frames.
        let sender = self.pods.get(&mac).filter(|_| own).cloned().unwrap_or(SentBy::Other);
        let known = self.gateways.entry(key.clone()).or_insert(Gateway { mac, told: None });
        if known.mac == mac || known.told.is_some_and(|told| told + EACH_GATEWAY > now) {
            return None;
        }
        let (uplink, (vlan, address)) = key;
        let report = Report::gateway_changed((uplink, *vlan), *address, [known.mac, mac], &sender);
        *known = Gateway { mac, told: Some(now) };
        Some(report)
    }

    /// Judges those who are not judged yet.
    fn judge(&mut self, uplink: &str, unknown: &BTreeSet<Option<u16>>, now: Time) -> Vec<Report> {
        let mut reports = Vec::new();
        let of_uplink = self.speakers.iter_mut().filter(|((heard_on, _), _)| heard_on == uplink);
        for ((_, speaker), known) in of_uplink.filter(|(_, known)| !known.is_judged) {
            let segment = (uplink.to_owned(), speaker.vlan);
            let Some(expects_dhcp) = self.expects_dhcp.get(&segment) else { continue };
            let mut gateways =
                self.gateways.iter().filter(|((on, (vlan, _)), _)| on == uplink && *vlan == speaker.vlan);
            let is_gateway = gateways.any(|((_, (_, address)), gateway)| {
                *address == known.said.address || [speaker.mac, known.said.mac].contains(&gateway.mac)
            });
            let is_expected = match speaker.role {
                Role::DhcpServer => *expects_dhcp,
                Role::Router if is_gateway => true,
                Role::Router if unknown.contains(&speaker.vlan) && known.first + PATIENCE > now => continue,
                Role::Router => false,
            };
            known.is_judged = true;
            if !is_expected {
                let sender = self.pods.get(&speaker.mac).filter(|_| known.said.own).cloned();
                let by_default = if known.said.own { SentBy::Node } else { SentBy::Other };
                let sender = sender.unwrap_or(by_default);
                reports.push(Report::stranger((uplink, speaker.vlan), speaker, &known.said, &sender));
            }
        }
        reports
    }
}

#[cfg(test)]
mod tests;
