//! The packet filter: the plugin's rules, and foreign rules that drop pods' packets.

use std::collections::{BTreeMap, BTreeSet};

use cni_conf::family::Family;
use kernel::link::Link;
use vlan_bridge::guard::limits;
use vlan_bridge::nat::BridgedDrop;
use vlan_bridge::ownership::{Progress, attachment_of};

use super::finding::{Finding, counted, shortened};
use super::reverse_path;
use crate::facts::{Facts, ForwardChain, Legacy, NetworkState};

const FORWARD: &str = "forward";

/// Forward chains that drop pods' packets.
pub(super) fn forwarding(facts: &Facts) -> Vec<Finding> {
    if facts.filter_denied.is_some() {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = facts.accept_all_tables.iter().map(|table| accepts_all(table)).collect();
    for (bridge, BridgedDrop { what, is_doubtful }) in &facts.bridged_dropped {
        let finding = if *is_doubtful {
            let why = "foreign rules in that chain match these packets: unless one accepts them, pods reach only this node";
            Finding::warn(FORWARD, what, why)
        } else {
            let why = "the policy is newer than the pods, or the plugin's rule was removed: these pods reach only this node";
            Finding::fail(FORWARD, what, why)
        };
        findings.push(finding.fix(format!(
            "vlan-bridgectl repair (or the next ADD on {bridge}) inserts the accept rule; or sysctl -w net.bridge.bridge-nf-call-iptables=0 \
             (for IPv6: bridge-nf-call-ip6tables)"
        )));
    }
    findings.extend(facts.open_uplinks.iter().map(|device| open_uplink(facts, device)));
    findings.extend(facts.networks.iter().flat_map(|network| older_than_policy(facts, network)));
    findings.extend(facts.networks.iter().flat_map(|network| reverse_path::dropped(facts, network)));
    for device in forwarded(facts) {
        findings.extend(facts.legacy.iter().filter_map(|legacy| dropped_by_legacy(legacy, &device)));
        let others = facts.forward_chains.iter().filter(|chain| !chain.devices.contains(&device));
        findings.extend(others.map(|chain| dropped_by(chain, &device)));
    }
    if findings.is_empty() {
        let calls = if calls_iptables(facts) { "on" } else { "off" };
        findings.push(Finding::ok(
            FORWARD,
            format!("no chain drops pods' packets; br_netfilter's iptables calls {calls}"),
        ));
    }
    findings
}

/// The node would route between its VLANs, bypassing their firewall.
fn open_uplink(facts: &Facts, device: &str) -> Finding {
    let seen = format!("table inet vlan-bridge-uplinks has no rule for {device}");
    let forwards = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    let forwards = forwards.iter().any(|key| facts.sysctls.get(key) == Some(1));
    let fix = "vlan-bridgectl repair";
    if forwards {
        let why = "this node forwards packets of any host there to its other networks, bypassing the firewall between them";
        Finding::fail(FORWARD, seen, why).fix(fix)
    } else {
        let why = "forwarding is off now; once it is on, this node is a router for every host there";
        Finding::warn(FORWARD, seen, why).fix(fix)
    }
}

/// A rule of the plugin that iptables up to 1.8.7 saved without its mark.
fn accepts_all(table: &str) -> Finding {
    let seen = format!("a rule of vlan-bridge in chain FORWARD of table {table} accepts everything");
    let why = "its mark was lost when iptables rules were saved and restored: packets that the policy should drop are forwarded";
    Finding::fail(FORWARD, seen, why).fix("vlan-bridgectl repair")
}

/// A gateway network without NAT whose pods are older than the chain's policy: the plugin has no rule for
/// them. The ADD of the next pod inserts one.
fn older_than_policy<'a>(facts: &'a Facts, network: &'a NetworkState) -> impl Iterator<Item = Finding> + 'a {
    let of = &network.config.network;
    let device = of.node_device();
    let is_attached = |link: &Link| attachment_of(link).is_some_and(|pod| pod.network == network.config.name);
    let is_concerned = of.is_gateway && !of.has_nat() && facts.attachments().any(is_attached);
    let chains = facts.forward_drops.iter().filter(move |chain| {
        is_concerned
            && network.has_family(if chain.family == "ip6" { Family::V6 } else { Family::V4 })
            && !chain.devices.contains(&of.node_device())
            && !chain.let_through.contains(&of.node_device())
    });
    chains.map(move |chain| {
        let ForwardChain { family, table, chain, .. } = chain;
        let program = if *family == "ip6" { "ip6tables" } else { "iptables" };
        let seen = format!("chain {chain} of table {family} {table} drops, and has no rule for {device}");
        let why = "the policy is newer than the pods: they reach only this node, until the ADD of the next pod on the bridge inserts a rule, and as long as that pod exists";
        ["-i", "-o"].iter().fold(Finding::warn(FORWARD, seen, why), |finding, way| {
            finding.fix(format!("{program} -I FORWARD {way} {device} -j ACCEPT"))
        })
    })
}

fn calls_iptables(facts: &Facts) -> bool {
    ["iptables", "ip6tables"]
        .iter()
        .any(|key| facts.sysctls.get(&format!("bridge/bridge-nf-call-{key}")) == Some(1))
}

/// The devices whose packets pass forward chains: those of routed pods, and with br_netfilter those of
/// bridged pods.
fn forwarded(facts: &Facts) -> BTreeSet<String> {
    let called = calls_iptables(facts);
    let of = |network: &cni_conf::network::Network| {
        let is_routed = network.is_gateway || network.has_nat();
        let is_bridged = called && network.uplink.is_some();
        let routed = is_routed.then(|| network.node_device());
        routed.into_iter().chain(is_bridged.then(|| network.bridge.clone()))
    };
    facts.networks.iter().flat_map(|network| of(&network.config.network)).collect()
}

/// A legacy chain with policy DROP. The plugin cannot insert rules there.
fn dropped_by_legacy(legacy: &Legacy, device: &str) -> Option<Finding> {
    let program = legacy.program;
    let rules = ["-i", "-o"].map(|way| format!("-A FORWARD {way} {device} -j ACCEPT"));
    let Some(chain) = &legacy.chain else {
        let seen =
            format!("legacy iptables has a filter table, and {program} is not installed to read its policy");
        let why = format!("if the policy is DROP, packets from {device} are dropped");
        let command = rules.map(|rule| format!("{program} {rule}")).join("; ");
        return Some(Finding::warn(FORWARD, seen, why).fix(command));
    };
    let has = |line: &str| chain.lines().any(|there| there == line);
    if !has("-P FORWARD DROP") || rules.iter().all(|rule| has(rule)) {
        return None;
    }
    let seen = format!("{program}: the policy of FORWARD is DROP, and there is no rule for {device}");
    let why = "vlan-bridge cannot insert a rule there: packets of the device's pods are dropped";
    let missing = rules.into_iter().filter(|rule| !has(rule));
    Some(
        missing.fold(Finding::warn(FORWARD, seen, why), |finding, rule| {
            finding.fix(format!("{program} {rule}"))
        }),
    )
}

/// A foreign chain that drops. An accept in one table does not override a drop in another.
fn dropped_by(chain: &ForwardChain, device: &str) -> Finding {
    let ForwardChain { family, table, chain, .. } = chain;
    let seen = format!("chain {chain} of table {family} {table} drops, and has no rule for {device}");
    let why = "vlan-bridge cannot insert a rule there: packets of the device's pods are dropped";
    let finding = Finding::warn(FORWARD, seen, why);
    if table == "firewalld" {
        return finding
            .fix(format!("firewall-cmd --permanent --zone=trusted --add-interface={device}"))
            .fix("firewall-cmd --reload");
    }
    let rule = |way| format!("nft insert rule {family} {table} {chain} {way} {device} accept");
    finding.fix(rule("iifname")).fix(rule("oifname"))
}

/// The guards of attached pods.
pub(super) fn guard(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "guard";
    let guarded = |name: &str| {
        facts
            .networks
            .iter()
            .any(|network| network.config.name == name && limits(&network.config.network).is_some())
    };
    let pods: Vec<&Link> = facts
        .attachments()
        .filter(|link| {
            let of = attachment_of(link).filter(|attachment| attachment.progress(link) == Progress::Ready);
            of.is_some_and(|attachment| guarded(attachment.network))
        })
        .collect();
    if pods.is_empty() || facts.filter_denied.is_some() {
        return Vec::new();
    }
    let ports = facts.guarded.as_deref().unwrap_or_default();
    let open: Vec<&str> = pods
        .iter()
        .map(|link| link.name.as_str())
        .filter(|name| !ports.iter().any(|port| port == name))
        .collect();
    let mut lost: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (veth, what) in &facts.broken_guards {
        if pods.iter().any(|link| link.name == *veth) && !open.contains(&veth.as_str()) {
            lost.entry(what).or_default().push(veth);
        }
    }
    if open.is_empty() && lost.is_empty() {
        return vec![Finding::ok(CHECK, format!("{}: guards are complete", counted(pods.len(), "pod")))];
    }
    let mut findings = Vec::new();
    if !open.is_empty() {
        let why = "a firewall restart removed it, or the network had none when the pod was attached: the pod can spoof any address";
        let fix = "vlan-bridgectl repair; restart a pod without a record";
        findings.push(Finding::fail(CHECK, format!("no guard for {}", shortened(&open)), why).fix(fix));
    }
    for (what, veths) in lost {
        let why =
            "rules or sets of vlan-bridge were flushed: a pod can spoof any address, or cannot send at all";
        let finding = Finding::fail(CHECK, format!("{}: {what}", shortened(&veths)), why);
        findings.push(finding.fix("vlan-bridgectl repair"));
    }
    findings
}

/// Masquerading and host ports.
pub(super) fn rules(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "nat";
    let mut findings = Vec::new();
    if let Some(why) = &facts.filter_denied {
        let unknown = "whether the rules of vlan-bridge are complete, and whether foreign rules drop pods' packets, is unknown";
        return vec![Finding::warn(CHECK, why, unknown).fix("run as root")];
    }
    if let Some(why) = &facts.filter_lacks {
        findings.push(
            Finding::fail(CHECK, why, "ADDs of pods that need it fail")
                .fix("modprobe -a nf_tables nft_chain_nat nft_nat nft_masq nft_fib_inet nft_ct nft_compat xt_mark xt_comment"),
        );
    }
    let mut broken: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (veth, what) in &facts.broken_rules {
        broken.entry(what).or_default().push(veth);
    }
    for (what, veths) in broken {
        let why = "a firewall restart removed the rules: the pod or its host ports are cut off";
        findings.push(
            Finding::fail(CHECK, format!("{}: {what}", shortened(&veths)), why).fix("vlan-bridgectl repair"),
        );
    }
    if findings.is_empty() && !facts.records.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("the rules of {} are complete", counted(facts.records.len(), "pod")),
        ));
    }
    findings
}
