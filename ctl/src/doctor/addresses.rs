//! The pods' addresses: the gateways' answers, duplicates, the usage of ranges, and leaked leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cni_conf::cni::mac::MacAddr;
use kernel::ask::Answers;
use kernel::link::Kind;
use vlan_bridge::ownership::Attachment;
use vlan_bridge_agent::KnownConflict;
use vlan_bridge_ipam::store::{Holder, Known, StoreError, Usage};

use super::finding::{Finding, counted, shortened};
use super::uplink::has_no_active_member;
use crate::facts::{Facts, NetworkState, ProbeResult};

/// The time that an ADD may take from its lease to its interface.
const MAX_ADD_DURATION: Duration = Duration::from_secs(60);

/// The answers of the gateways, and of other hosts with this node's addresses.
pub(super) fn vlan(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for network in &facts.networks {
        let Some(ProbeResult { from, answers, other_mac_answers }) = &network.probe else { continue };
        let tag = from.tag.map_or(String::new(), |tag| format!(" with tag {tag}"));
        let from = format!("{}{tag}", from.interface);
        match answers {
            Err(why) => findings.push(not_probed(facts, network, &from, why)),
            Ok(answers) => {
                findings.extend(gateways(facts, network, &from, answers));
                findings.extend(own_mac_only(network, &from, answers, other_mac_answers));
                findings.extend(duplicates(facts, network, answers));
            }
        }
    }
    findings
}

/// A bond without an active member drops the probes, and the kernel says ENOBUFS.
fn not_probed(facts: &Facts, network: &NetworkState, from: &str, error: &str) -> Finding {
    const CHECK: &str = "vlan";
    let unknown = "whether the switch carries the VLAN is unknown";
    let master = network.config.network.uplink.as_ref().and_then(|uplink| facts.link(&uplink.master));
    match master.filter(|master| has_no_active_member(facts, master)) {
        Some(bond) => {
            let seen = format!("cannot probe from {from}: {} has no member that is up", bond.name);
            Finding::warn(CHECK, seen, unknown).fix("fix the findings of member first")
        }
        None => Finding::warn(CHECK, format!("cannot probe from {from}: {error}"), unknown)
            .fix("run as root, with the interface up"),
    }
}

fn gateways(facts: &Facts, network: &NetworkState, from: &str, answers: &Answers) -> Vec<Finding> {
    const CHECK: &str = "vlan";
    let judge = |gateway: IpAddr| match answers.get(&gateway) {
        Some(macs) => Finding::ok(CHECK, format!("{gateway} answers {from}: {}", listed(macs))),
        // ProbeResult with a tag of our own making; the switch is to be blamed once pods could use it.
        None if facts.lacks_vlan_module(&network.config) => {
            let why = "pods need the VLAN once this kernel can create its sub-interface";
            Finding::warn(CHECK, format!("the gateway {gateway} does not answer {from}"), why)
                .fix("fix the finding modules first")
        }
        None => {
            let why =
                "the switch does not carry the VLAN to this node, or the router is down: pods are cut off";
            Finding::fail(CHECK, format!("the gateway {gateway} does not answer {from}"), why)
                .fix("allow the VLAN on the switch's ports (trunk, tagged) and between the switches; check ipam.gateway")
        }
    };
    network.gateways().into_iter().map(judge).collect()
}

/// Gateways that answer probes with this machine's MAC, and not those with another MAC: something in
/// between filters MACs, and no pod gets through.
fn own_mac_only(
    network: &NetworkState,
    from: &str,
    answers: &Answers,
    other_mac_answers: &Result<Answers, String>,
) -> Option<Finding> {
    const CHECK: &str = "vlan";
    let other_mac_answers = match other_mac_answers {
        Ok(other_mac_answers) => other_mac_answers,
        Err(error) => {
            let seen = format!("cannot probe from {from} with another MAC: {error}");
            return Some(Finding::warn(CHECK, seen, "whether frames with pods' MACs pass is unknown"));
        }
    };
    let has_own_only =
        |gateway: &IpAddr| answers.contains_key(gateway) && !other_mac_answers.contains_key(gateway);
    let unheard: Vec<String> =
        network.gateways().iter().filter(|gateway| has_own_only(gateway)).map(IpAddr::to_string).collect();
    if unheard.is_empty() {
        return None;
    }
    let seen = format!("{} answers {from} with its own MAC, and not with another", unheard.join(", "));
    let why = "the hypervisor or the switch accepts only this machine's own MAC: every pod is cut off";
    Some(Finding::fail(CHECK, seen, why).fix(
        "allow more MACs on this machine's port: vSphere forged transmits and promiscuous mode (or MAC learning), Hyper-V \
         MacAddressSpoofing, OpenStack allowed-address-pairs or no port security, libvirt no clean-traffic filter; on a \
         switch, a higher port-security maximum",
    ))
}

/// Other hosts that use addresses of this node's ranges.
fn duplicates(facts: &Facts, network: &NetworkState, answers: &Answers) -> Vec<Finding> {
    const CHECK: &str = "duplicates";
    let ipam = network.config.network.addresses.as_ref();
    let sets = || ipam.iter().flat_map(|ipam| &ipam.ranges);
    let own: Vec<_> = ipam.iter().flat_map(|ipam| ipam.own_ranges()).map(|(_, range)| range).collect();
    let mut findings = Vec::new();
    for (addr, macs) in answers.iter().filter(|(addr, _)| sets().any(|set| set.offers(**addr))) {
        let held = network.leases.held.iter().find(|(held, _)| held == addr);
        if held.is_none() && !own.iter().any(|range| range.contains(*addr)) {
            continue;
        }
        match held {
            Some((_, known)) if macs.len() > 1 => {
                let why =
                    format!("two hosts use it, and one is {}: each loses some of its packets", named(known));
                findings
                    .push(Finding::fail(CHECK, format!("{addr} is in use by {}", listed(macs)), why).fix(
                    "find the other MAC on the switch, delete the pod, and add the address to ipam.exclude",
                ));
            }
            Some(_) => {}
            None => {
                let why = "no lease here has it: a host in the slice, or another node with the same slice";
                findings.push(
                    Finding::fail(CHECK, format!("{addr} is in use by {}", listed(macs)), why)
                        .fix("compare the nodes' slices; add the address of another host to ipam.exclude"),
                );
            }
        }
    }
    let is_in_conflict =
        |(addr, _): &(IpAddr, Known)| facts.conflicts().iter().any(|known| known.address == *addr);
    if findings.is_empty() && !network.leases.held.iter().any(is_in_conflict) {
        findings
            .push(Finding::ok(CHECK, format!("no other host uses an address of {}", network.config.name)));
    }
    findings
}

/// The conflicts that the agent knows, without those that were found by probing too.
pub(super) fn conflicts(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "duplicates";
    let probes = || facts.networks.iter().filter_map(|network| network.probe.as_ref());
    let is_found = |address| {
        let mut answers = probes().filter_map(|probe| probe.answers.as_ref().ok());
        answers.any(|answers| answers.get(address).is_some_and(|macs| macs.len() > 1))
    };
    let judge = |conflict: &KnownConflict| {
        let KnownConflict { address, mac, pod, other, uplink } = conflict;
        let whose = pod.as_ref().map_or("a pod".to_owned(), |pod| format!("pod {pod}"));
        let seen = format!("{address} is in use by {mac} and {other}: the agent heard {other} on {uplink}");
        let why = format!("two hosts use it, and one is {whose}: each loses some of its packets");
        let vlan = facts.link(uplink).and_then(|port| match port.kind {
            Kind::Vlan { id, .. } => Some(format!(" of VLAN {id}")),
            _ => None,
        });
        let vlan = vlan.unwrap_or_default();
        Finding::fail(CHECK, seen, why)
            .fix(format!("find the port with {other} in the switch's MAC table{vlan}, and give that machine another address"))
            .fix(format!("or add {address} to ipam.exclude, and restart the pod"))
    };
    facts.conflicts().iter().filter(|conflict| !is_found(&conflict.address)).map(judge).collect()
}

fn listed(macs: &BTreeSet<MacAddr>) -> String {
    macs.iter().map(MacAddr::to_string).collect::<Vec<_>>().join(" and ")
}

/// The usage of the ranges, and leases without a pod.
pub(super) fn leases(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "ipam";
    let mut findings = Vec::new();
    for network in facts.networks.iter().filter(|network| network.config.network.addresses.is_some()) {
        let before = findings.len();
        if let Some(why) = &network.leases.unreadable {
            let fix = match why {
                StoreError::Busy(_) => "end that process, which releases the lock",
                _ => "fix the directory's owner and mode",
            };
            findings.push(Finding::fail(CHECK, why.to_string(), "the next pod gets no address").fix(fix));
            continue;
        }
        findings.extend(network.leases.usage.iter().filter_map(|usage| scarce(&network.config.name, usage)));
        findings.extend(leaks(facts, network));
        findings.extend(of_other_machines(network));
        for (addr, mac, left) in &network.leases.quarantined {
            let why = format!("another host uses it; the quarantine ends in {left} s");
            findings.push(
                Finding::warn(CHECK, format!("{addr} is quarantined: {mac} uses it"), why)
                    .fix("find the host, or add the address to ipam.exclude"),
            );
        }
        if findings.len() == before {
            let usage: Vec<String> = network.leases.usage.iter().map(Usage::to_string).collect();
            let usage = if usage.is_empty() { "no leases yet".to_owned() } else { usage.join("; ") };
            findings.push(Finding::ok(CHECK, format!("{}: {usage}", network.config.name)));
        }
    }
    findings.extend(facts.orphans.iter().map(|(folder, held)| {
        let network = folder.file_name().unwrap_or_default().to_string_lossy();
        let why = "the network was renamed or removed; a DEL of its pods releases their leases";
        Finding::warn(CHECK, format!("{}: {}, and no list has a network of that name", folder.display(), counted(*held, "lease")), why)
            .fix(format!(
                "vlan-bridge-ipam check --network {network}; vlan-bridge-ipam release ADDRESS --network {network} for each that stays"
            ))
    }));
    findings
}

/// Leases of other machines in this data directory: a finding for each machine.
fn of_other_machines(network: &NetworkState) -> Vec<Finding> {
    const CHECK: &str = "ipam";
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for machine in network.leases.held.iter().filter_map(|(_, known)| known.elsewhere.as_deref()) {
        *counts.entry(machine).or_default() += 1;
    }
    let name = &network.config.name;
    let finding = |(machine, count): (&str, usize)| {
        let seen = format!("{name}: {} of another machine, {machine}", counted(count, "lease"));
        let why = "this node neither uses nor releases them; two machines must not share ipam.dataDir";
        Finding::warn(CHECK, seen, why).fix(format!(
            "give each node its own dataDir; if that machine is gone, or the directory is a copy of its: \
             vlan-bridge-ipam release --machine {machine} --network {name}"
        ))
    };
    counts.into_iter().map(finding).collect()
}

fn scarce(network: &str, usage: &Usage) -> Option<Finding> {
    const CHECK: &str = "ipam";
    let seen = format!("{network}: {usage}");
    let taken = usage.used + usage.quarantined;
    let fix = "give the node a larger slice, or drain it";
    if taken >= usage.total {
        return Some(Finding::fail(CHECK, seen, "no address is free: the next pod does not start").fix(fix));
    }
    let scarce = usage.total - taken <= usage.total / 10;
    scarce.then(|| Finding::warn(CHECK, seen, "at most a tenth is free").fix(fix))
}

/// Why a leased address has no interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The holder's namespace does not exist.
    Dead,
    /// The holder's namespace exists, and the interface does not.
    CutOff,
    /// Like `CutOff`, but its ADD may still run.
    Recent,
    /// It is unknown whether the holder exists.
    Unknown,
    /// The lease cannot be read.
    Unreadable,
}

/// Leases whose holders have no interface on this node: a finding for each cause.
fn leaks(facts: &Facts, network: &NetworkState) -> Vec<Finding> {
    let mut causes: BTreeMap<Cause, Vec<(IpAddr, String)>> = BTreeMap::new();
    for (addr, known) in &network.leases.held {
        if let Some(cause) = leak_cause(facts, &network.config.name, known) {
            causes.entry(cause).or_default().push((*addr, named(known)));
        }
    }
    causes.into_iter().map(|(cause, held)| leak_finding(&network.config.name, cause, &held)).collect()
}

fn leak_cause(facts: &Facts, network: &str, known: &Known) -> Option<Cause> {
    if known.elsewhere.is_some() {
        return None;
    }
    let alive = known.is_alive();
    let Holder::Attachment(owner) = &known.holder else {
        let is_leak = alive == Some(false) || !matches!(known.holder, Holder::Container(_));
        return is_leak.then_some(Cause::Unreadable);
    };
    let attachment = Attachment::new(network, &owner.container_id, &owner.ifname);
    match alive {
        Some(false) => Some(Cause::Dead),
        _ if facts.link(&attachment.host_interface()).is_some() => None,
        _ if is_recent(known, facts.now) => Some(Cause::Recent),
        Some(true) => Some(Cause::CutOff),
        None => Some(Cause::Unknown),
    }
}

/// A finding about one lease or many.
fn leak_finding(network: &str, cause: Cause, held: &[(IpAddr, String)]) -> Finding {
    const CHECK: &str = "ipam";
    let seen = match (cause, held) {
        (Cause::Unreadable, [(addr, _)]) => format!("the lease of {addr} cannot be read"),
        (_, [(addr, holder)]) => format!("{addr} is held by {holder}, which has no interface here"),
        _ => {
            let names: Vec<String> = held.iter().map(|(addr, holder)| format!("{addr} ({holder})")).collect();
            let what = if cause == Cause::Unreadable {
                "leases that cannot be read"
            } else {
                "addresses without an interface here"
            };
            format!("{network}: {} {what}: {}", held.len(), shortened(&names))
        }
    };
    let lost = "they are not available to new pods until you release them";
    let release = match held {
        [(addr, _)] => format!("vlan-bridge-ipam release {addr} --network {network}"),
        _ => {
            let all: Vec<String> = held.iter().map(|(addr, _)| addr.to_string()).collect();
            format!("for a in {}; do vlan-bridge-ipam release $a --network {network}; done", all.join(" "))
        }
    };
    match cause {
        Cause::Dead => Finding::warn(CHECK, seen, format!("their pods no longer exist: {lost}"))
            .fix("vlan-bridge-ipam check"),
        Cause::CutOff => {
            Finding::fail(CHECK, seen, "the pods run, but their interfaces were deleted: they are cut off")
                .fix("delete the pods: their DELs release the leases, and their controllers start new pods")
        }
        Cause::Recent => Finding::warn(
            CHECK,
            seen,
            "their ADDs still run, or the interfaces of recently started pods were deleted",
        )
        .fix("run vlan-bridgectl doctor again in a minute"),
        Cause::Unknown => Finding::warn(CHECK, seen, lost).fix(release),
        Cause::Unreadable => Finding::warn(CHECK, seen, lost).fix(release),
    }
}

/// Whether the lease is so recent that its ADD may still run.
fn is_recent(known: &Known, now: Duration) -> bool {
    known
        .record
        .as_ref()
        .filter(|record| !record.adopted)
        .is_some_and(|record| now.as_secs().abs_diff(record.since) < MAX_ADD_DURATION.as_secs())
}

fn named(known: &Known) -> String {
    match (&known.record, &known.holder) {
        (Some(record), _) if record.pod.is_some() => {
            record.pod.as_ref().map_or(String::new(), |pod| format!("pod {pod}"))
        }
        (_, Holder::Attachment(owner)) => owner.to_string(),
        (_, Holder::Container(id)) => format!("container {id}"),
        _ => "an unreadable holder".to_owned(),
    }
}
