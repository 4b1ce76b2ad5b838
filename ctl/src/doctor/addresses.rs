//! The pods' addresses: does the network answer, does anybody else use them, are any left, do any leak?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cni_conf::cni::mac::MacAddr;
use kernel::ask::Answers;
use vlan_bridge::ownership::Attachment;
use vlan_bridge_ipam::store::{Holder, Known, StoreError, Usage};

use super::finding::{Finding, shortened};
use crate::facts::{Facts, Network, ProbeResult};

/// So long an ADD may take from its lease to its interface.
const ADDING: Duration = Duration::from_secs(60);

/// What the network answered.
pub(super) fn vlan(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "vlan";
    let mut findings = Vec::new();
    for network in &facts.networks {
        let Some(ProbeResult { from, answers, other_mac_answers }) = &network.probe else { continue };
        let tag = from.tag.map_or(String::new(), |tag| format!(" with tag {tag}"));
        let from = format!("{}{tag}", from.interface);
        match answers {
            Err(why) => findings.push(
                Finding::warn(
                    CHECK,
                    format!("{from} could not be asked: {why}"),
                    "whether the VLAN passes is not known",
                )
                .fix("run as root, with the interface up"),
            ),
            Ok(answers) => {
                findings.extend(gateways(facts, network, &from, answers));
                findings.extend(own_mac_only(network, &from, answers, other_mac_answers));
                findings.extend(strangers(network, answers));
            }
        }
    }
    findings
}

fn gateways(facts: &Facts, network: &Network, from: &str, answers: &Answers) -> Vec<Finding> {
    const CHECK: &str = "vlan";
    let judge = |gateway: IpAddr| match answers.get(&gateway) {
        Some(macs) => Finding::ok(CHECK, format!("{gateway} answers {from}: {}", listed(macs))),
        // ProbeResult with a tag of our own making; the switch is to be blamed once pods could use it.
        None if facts.cannot_tag(&network.config) => {
            let why = "whether the VLAN passes matters to pods once this kernel can make its sub-interface";
            Finding::warn(CHECK, format!("the gateway {gateway} does not answer {from}"), why)
                .fix("see modules first")
        }
        None => {
            let why =
                "the switch does not carry the VLAN to this node, or the router is away: pods get nowhere";
            Finding::fail(CHECK, format!("the gateway {gateway} does not answer {from}"), why)
                .fix("allow the VLAN on the switch's ports (trunk, tagged) and between the switches; compare ipam.gateway")
        }
    };
    network.gateways().into_iter().map(judge).collect()
}

/// Gateways that answer this machine's own MAC and no other: something between lets no pod through.
fn own_mac_only(
    network: &Network,
    from: &str,
    answers: &Answers,
    other_mac_answers: &Result<Answers, String>,
) -> Option<Finding> {
    const CHECK: &str = "vlan";
    let other_mac_answers = match other_mac_answers {
        Ok(other_mac_answers) => other_mac_answers,
        Err(error) => {
            let seen = format!("{from} could not be asked under another MAC: {error}");
            return Some(Finding::warn(CHECK, seen, "whether pods' MACs pass is not known"));
        }
    };
    let has_own_only =
        |gateway: &IpAddr| answers.contains_key(gateway) && !other_mac_answers.contains_key(gateway);
    let unheard: Vec<String> =
        network.gateways().iter().filter(|gateway| has_own_only(gateway)).map(IpAddr::to_string).collect();
    if unheard.is_empty() {
        return None;
    }
    let seen = format!("{} answers {from} under its own MAC, and not under another", unheard.join(", "));
    let why = "the hypervisor or the switch lets only this machine's own MAC through: every pod is cut off";
    Some(Finding::fail(CHECK, seen, why).fix(
        "allow more MACs on this machine's port: vSphere forged transmits and promiscuous mode (or MAC learning), Hyper-V \
         MacAddressSpoofing, OpenStack allowed-address-pairs or no port security, libvirt no clean-traffic filter; on a \
         switch, a higher port-security maximum",
    ))
}

/// Machines that use addresses which are ours to give.
fn strangers(network: &Network, answers: &Answers) -> Vec<Finding> {
    const CHECK: &str = "duplicates";
    let sets = || network.config.ipam.iter().flat_map(|ipam| &ipam.ranges);
    let mut findings = Vec::new();
    for (addr, macs) in answers.iter().filter(|(addr, _)| sets().any(|set| set.offers(**addr))) {
        let held = network.leases.held.iter().find(|(held, _)| held == addr);
        match held {
            Some((_, known)) if macs.len() > 1 => {
                let why = format!(
                    "two machines have it, {} among them: each loses half of what is sent to it",
                    named(known)
                );
                findings.push(
                    Finding::fail(CHECK, format!("{addr} is answered for by {}", listed(macs)), why)
                        .fix("find the other MAC on the switch; then delete the pod, and name the address in ipam.exclude"),
                );
            }
            Some(_) => {}
            None => {
                let why = "nobody here holds it: a machine in the slice, or another node that gives out the same slice";
                findings.push(
                    Finding::fail(CHECK, format!("{addr} is answered for by {}", listed(macs)), why)
                        .fix("compare the nodes' slices; name a foreign machine's address in ipam.exclude"),
                );
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("nobody else answers for addresses of {}", network.config.name),
        ));
    }
    findings
}

fn listed(macs: &BTreeSet<MacAddr>) -> String {
    macs.iter().map(MacAddr::to_string).collect::<Vec<_>>().join(" and ")
}

/// Who holds addresses, and how many are left.
pub(super) fn leases(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "ipam";
    let mut findings = Vec::new();
    for network in facts.networks.iter().filter(|network| network.config.ipam.is_some()) {
        let before = findings.len();
        if let Some(why) = &network.leases.unreadable {
            let cure = match why {
                StoreError::Busy(_) => "end that process; the lock goes with it",
                _ => "fix the folder's owner and mode",
            };
            findings.push(Finding::fail(CHECK, why.to_string(), "the next pod gets no address").fix(cure));
            continue;
        }
        findings.extend(network.leases.usage.iter().filter_map(|usage| scarce(&network.config.name, usage)));
        findings.extend(leaks(facts, network));
        findings.extend(of_other_machines(network));
        for (addr, mac, left) in &network.leases.quarantined {
            let why = format!("a machine that is not ours uses it; it is offered again in {left} s");
            findings.push(
                Finding::warn(CHECK, format!("{addr} is quarantined: {mac} has it"), why)
                    .fix("find the machine, or name the address in ipam.exclude"),
            );
        }
        if findings.len() == before {
            let told: Vec<String> = network.leases.usage.iter().map(Usage::to_string).collect();
            let told = if told.is_empty() { "nothing given out yet".to_owned() } else { told.join("; ") };
            findings.push(Finding::ok(CHECK, format!("{}: {told}", network.config.name)));
        }
    }
    findings.extend(facts.orphans.iter().map(|(folder, held)| {
        let network = folder.file_name().unwrap_or_default().to_string_lossy();
        let why = "a network that was renamed or removed; its addresses come back with the DEL of its pods";
        Finding::warn(CHECK, format!("{}: {held} addresses are held, and no list has that name", folder.display()), why)
            .fix(format!(
                "vlan-bridge-ipam check --network {network}; vlan-bridge-ipam release ADDRESS --network {network} for each that stays"
            ))
    }));
    findings
}

/// What other machines gave out of this folder: one line for each.
fn of_other_machines(network: &Network) -> Vec<Finding> {
    const CHECK: &str = "ipam";
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for machine in network.leases.held.iter().filter_map(|(_, known)| known.elsewhere.as_deref()) {
        *counts.entry(machine).or_default() += 1;
    }
    let name = &network.config.name;
    let finding = |(machine, count): (&str, usize)| {
        let seen = format!("{name}: {count} addresses are of another machine, {machine}");
        let why = "nobody here gives them out or back; no two machines may share ipam.dataDir";
        Finding::warn(CHECK, seen, why).fix(format!(
            "give each node a dataDir of its own; if that machine is gone, or the folder is a copy of its: \
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
        return Some(Finding::fail(CHECK, seen, "no address is left: the next pod does not start").fix(fix));
    }
    let scarce = usage.total - taken <= usage.total / 10;
    scarce.then(|| Finding::warn(CHECK, seen, "less than a tenth is left").fix(fix))
}

/// Why an address has no interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The holder's namespace is gone.
    Dead,
    /// The holder's namespace is there, and the interface is not.
    CutOff,
    /// The same, and its ADD may be under way.
    Fresh,
    /// Nobody can tell what has become of the holder.
    Lost,
    /// Nobody can tell who holds it.
    Unreadable,
}

/// Leases whose holders have no interface on this node: a finding for each cause, however many there are of
/// it.
fn leaks(facts: &Facts, network: &Network) -> Vec<Finding> {
    let mut causes: BTreeMap<Cause, Vec<(IpAddr, String)>> = BTreeMap::new();
    for (addr, known) in &network.leases.held {
        if let Some(cause) = leak(facts, &network.config.name, known) {
            causes.entry(cause).or_default().push((*addr, named(known)));
        }
    }
    causes.into_iter().map(|(cause, held)| leaked(&network.config.name, cause, &held)).collect()
}

fn leak(facts: &Facts, network: &str, known: &Known) -> Option<Cause> {
    if known.elsewhere.is_some() {
        return None;
    }
    let alive = known.is_alive();
    let Holder::Attachment(owner) = &known.holder else {
        let is_leak = alive == Some(false) || !matches!(known.holder, Holder::Container(_));
        return is_leak.then_some(Cause::Unreadable);
    };
    let attachment = Attachment { network, container_id: &owner.container_id, ifname: &owner.ifname };
    match alive {
        Some(false) => Some(Cause::Dead),
        _ if facts.link(&attachment.host_interface()).is_some() => None,
        _ if is_fresh(known, facts.now) => Some(Cause::Fresh),
        Some(true) => Some(Cause::CutOff),
        None => Some(Cause::Lost),
    }
}

/// One line of what may be many.
fn leaked(network: &str, cause: Cause, held: &[(IpAddr, String)]) -> Finding {
    const CHECK: &str = "ipam";
    let seen = match (cause, held) {
        (Cause::Unreadable, [(addr, _)]) => format!("the lease of {addr} says nothing that can be read"),
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
    let lost = "lost to the slice until somebody gives them back";
    let release = match held {
        [(addr, _)] => format!("vlan-bridge-ipam release {addr} --network {network}"),
        _ => {
            let all: Vec<String> = held.iter().map(|(addr, _)| addr.to_string()).collect();
            format!("for a in {}; do vlan-bridge-ipam release $a --network {network}; done", all.join(" "))
        }
    };
    match cause {
        Cause::Dead => {
            Finding::warn(CHECK, seen, format!("their pods are gone: {lost}")).fix("vlan-bridge-ipam check")
        }
        Cause::CutOff => {
            Finding::fail(CHECK, seen, "the pods run and are cut off: somebody deleted their interfaces").fix(
                "delete the pods: their controllers start others, and their DELs give the addresses back",
            )
        }
        Cause::Fresh => Finding::warn(
            CHECK,
            seen,
            "their ADDs are under way, or somebody deleted the interfaces of pods that have just started",
        )
        .fix("vlan-bridgectl doctor, again in a minute"),
        Cause::Lost => Finding::warn(CHECK, seen, lost).fix(release),
        Cause::Unreadable => Finding::warn(CHECK, seen, lost).fix(release),
    }
}

/// Whether the lease is so young that its ADD may be under way.
fn is_fresh(known: &Known, now: Duration) -> bool {
    known
        .record
        .as_ref()
        .filter(|record| !record.adopted)
        .is_some_and(|record| now.as_secs().abs_diff(record.since) < ADDING.as_secs())
}

fn named(known: &Known) -> String {
    match (&known.record, &known.holder) {
        (Some(record), _) if record.pod.is_some() => {
            record.pod.as_ref().map_or(String::new(), |(namespace, pod)| format!("pod {namespace}/{pod}"))
        }
        (_, Holder::Attachment(owner)) => owner.to_string(),
        (_, Holder::Container(id)) => format!("container {id}"),
        _ => "somebody who cannot be read".to_owned(),
    }
}
