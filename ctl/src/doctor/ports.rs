//! Pods whose port is in no bridge, or in another one than their network's: they are cut off, and nothing in
//! them shows it.

use kernel::link::Link;
use vlan_bridge::ownership::{Progress, attachment_of};

use super::finding::{Finding, counted, shortened};
use crate::facts::Facts;

const CHECK: &str = "ports";
/// So many pods are named.
const MOST: usize = 5;

/// A line for those in no bridge, and one for those in another.
pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    let finished = || {
        facts
            .attachments()
            .filter(|link| attachment_of(link).is_some_and(|pod| pod.progress(link) == Progress::Ready))
    };
    let outside: Vec<&Link> = finished().filter(|link| link.master.is_none()).collect();
    let down: Vec<&Link> = finished().filter(|link| link.master.is_some() && !link.up).collect();
    let elsewhere: Vec<&Link> = finished().filter(|link| is_elsewhere(facts, link)).collect();
    let mut findings = Vec::new();
    if !outside.is_empty() {
        let why = "somebody took them out, or the bridge away: these pods reach nobody, and nothing in them shows it";
        let seen = format!("{} in no bridge: {}", are(&outside), named(&outside));
        let fix = "vlan-bridgectl repair; a pod that an earlier release attached has to be started anew";
        findings.push(Finding::fail(CHECK, seen, why).fix(fix));
    }
    if !down.is_empty() {
        let seen = format!("{} down on the node: {}", are(&down), named(&down));
        findings.push(Finding::fail(CHECK, seen, "these pods have no carrier").fix("vlan-bridgectl repair"));
    }
    if !elsewhere.is_empty() {
        let why = "somebody has put them there: they are not on their network";
        let seen =
            format!("{} in another bridge than their network's: {}", are(&elsewhere), named(&elsewhere));
        let fix = elsewhere.iter().map(|link| format!("ip link set {} master BRIDGE", link.name));
        findings.push(fix.take(MOST).fold(Finding::warn(CHECK, seen, why), Finding::fix));
    }
    if !facts.without_veth.is_empty() {
        let gone: Vec<String> = facts
            .without_veth
            .iter()
            .map(|pod| format!("{} {} of {}", pod.container_id, pod.ifname, pod.network))
            .collect();
        let seen = format!("{} without an interface here: {}", counted(gone.len(), "pod"), shortened(&gone));
        let why = "somebody deleted the node's ends of their veths: the pods run and are cut off";
        findings.push(Finding::fail(CHECK, seen, why).fix("delete the pods: their controllers start others"));
    }
    if findings.is_empty() && finished().next().is_some() {
        findings.push(Finding::ok(CHECK, format!("{} in their bridges", counted(finished().count(), "pod"))));
    }
    findings
}

fn are(links: &[&Link]) -> String {
    let verb = if links.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(links.len(), "pod"))
}

fn named(links: &[&Link]) -> String {
    let name = |link: &&Link| match attachment_of(link) {
        Some(pod) => format!("{} {} of {} ({})", pod.container_id, pod.ifname, pod.network, link.name),
        None => link.name.clone(),
    };
    let more = if links.len() > MOST { ", …" } else { "" };
    format!("{}{more}", links.iter().take(MOST).map(name).collect::<Vec<_>>().join(", "))
}

/// As far as the network's list is known.
fn is_elsewhere(facts: &Facts, link: &Link) -> bool {
    let Some(pod) = attachment_of(link) else { return false };
    let network = facts.networks.iter().find(|network| network.config.name == pod.network);
    let bridge = network.and_then(|network| facts.link(&network.config.network.bridge));
    bridge.is_some_and(|bridge| link.master.is_some_and(|master| master != bridge.index))
}
