//! Pods whose host veth is not a port of their network's bridge. They are cut off, and nothing inside the
//! pod shows it.

use kernel::link::Link;
use vlan_bridge::ownership::{Progress, attachment_of};

use super::finding::{Finding, counted, shortened};
use crate::facts::Facts;

const CHECK: &str = "ports";
/// How many pods a finding names.
const MAX_NAMED: usize = 5;

/// Findings for pods without a bridge, down, in another bridge, and without a veth.
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
        let why = "another program removed the ports or the bridge: these pods are cut off, and nothing inside them shows it";
        let seen = format!("{} in no bridge: {}", counted_with_verb(&outside), named(&outside));
        let fix = "vlan-bridgectl repair; restart a pod that an earlier release attached";
        findings.push(Finding::fail(CHECK, seen, why).fix(fix));
    }
    if !down.is_empty() {
        let seen = format!("{} down on the node: {}", counted_with_verb(&down), named(&down));
        findings.push(Finding::fail(CHECK, seen, "these pods have no carrier").fix("vlan-bridgectl repair"));
    }
    if !elsewhere.is_empty() {
        let why = "another program moved them: they are not on their network";
        let seen = format!(
            "{} in another bridge than their network's: {}",
            counted_with_verb(&elsewhere),
            named(&elsewhere)
        );
        let fix = elsewhere.iter().map(|link| format!("ip link set {} master BRIDGE", link.name));
        findings.push(fix.take(MAX_NAMED).fold(Finding::warn(CHECK, seen, why), Finding::fix));
    }
    if !facts.without_veth.is_empty() {
        let gone: Vec<String> = facts
            .without_veth
            .iter()
            .map(|pod| format!("{} {} of {}", pod.container_id, pod.ifname, pod.network))
            .collect();
        let seen = format!("{} without an interface here: {}", counted(gone.len(), "pod"), shortened(&gone));
        let why = "another program deleted their host veths: the pods run, but are cut off";
        findings
            .push(Finding::fail(CHECK, seen, why).fix("delete the pods: their controllers start new ones"));
    }
    if findings.is_empty() && finished().next().is_some() {
        findings.push(Finding::ok(CHECK, format!("{} in their bridges", counted(finished().count(), "pod"))));
    }
    findings
}

fn counted_with_verb(links: &[&Link]) -> String {
    let verb = if links.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(links.len(), "pod"))
}

fn named(links: &[&Link]) -> String {
    let name = |link: &&Link| match attachment_of(link) {
        Some(pod) => format!("{} {} of {} ({})", pod.container_id, pod.ifname, pod.network, link.name),
        None => link.name.clone(),
    };
    let more = if links.len() > MAX_NAMED { ", …" } else { "" };
    format!("{}{more}", links.iter().take(MAX_NAMED).map(name).collect::<Vec<_>>().join(", "))
}

/// Whether the port is in another bridge, if the network's list is known.
fn is_elsewhere(facts: &Facts, link: &Link) -> bool {
    let Some(pod) = attachment_of(link) else { return false };
    let network = facts.networks.iter().find(|network| network.config.name == pod.network);
    let bridge = network.and_then(|network| facts.link(&network.config.network.bridge));
    bridge.is_some_and(|bridge| link.master.is_some_and(|master| master != bridge.index))
}
