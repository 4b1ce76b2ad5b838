//! The packet filter: what of ours is in it, and what of others' drops pods' packets.

use std::collections::{BTreeMap, BTreeSet};

use kernel::link::Link;
use vlan_bridge::guard::limits;
use vlan_bridge::nat::BridgedDrop;
use vlan_bridge::ownership::{Progress, attachment_of};

use super::finding::{Finding, counted, shortened};
use super::reverse_path;
use crate::facts::{Facts, ForwardChain, Legacy, Network};

const FORWARD: &str = "forward";

/// Policies that drop what pods send, and whether it meets them.
pub(super) fn forwarding(facts: &Facts) -> Vec<Finding> {
    if facts.filter_denied.is_some() {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = facts.accept_all_tables.iter().map(|table| opened(table)).collect();
    for (bridge, BridgedDrop { what, is_doubtful }) in &facts.bridged_dropped {
        let finding = if *is_doubtful {
            let why = "rules of others there are about it, or about what is bridged: if none accepts it, pods reach nobody but this node";
            Finding::warn(FORWARD, what, why)
        } else {
            let why = "the policy came after the pods, or somebody took our rule away: they reach nobody but this node";
            Finding::fail(FORWARD, what, why)
        };
        findings.push(finding.fix(format!(
            "vlan-bridgectl repair, or the next ADD on {bridge}, lets all of it pass; or sysctl -w net.bridge.bridge-nf-call-iptables=0 \
             (for IPv6: bridge-nf-call-ip6tables)"
        )));
    }
    findings.extend(facts.open_uplinks.iter().map(|device| open_uplink(facts, device)));
    findings.extend(facts.networks.iter().flat_map(|network| unmet(facts, network)));
    findings.extend(facts.networks.iter().flat_map(|network| reverse_path::dropped(facts, network)));
    for device in forwarded(facts) {
        findings.extend(facts.legacy.iter().filter_map(|legacy| dropped_by_legacy(legacy, &device)));
        let others = facts.forward_chains.iter().filter(|chain| !chain.devices.contains(&device));
        findings.extend(others.map(|chain| dropped_by(chain, &device)));
    }
    if findings.is_empty() {
        let calls = if is_bridged_called(facts) { "on" } else { "off" };
        findings.push(Finding::ok(
            FORWARD,
            format!("nothing drops what pods send; br_netfilter's iptables calls {calls}"),
        ));
    }
    findings
}

/// The node would be a router past the firewall between its VLANs.
fn open_uplink(facts: &Facts, device: &str) -> Finding {
    let seen = format!("no rule in table inet vlan-bridge-uplinks is about {device}");
    let forwards = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    let forwards = forwards.iter().any(|key| facts.sysctls.get(key) == Some(1));
    let fix = "vlan-bridgectl repair";
    if forwards {
        let why = "this node forwards what any machine there sends it to its other networks, past the firewall between them";
        Finding::fail(FORWARD, seen, why).fix(fix)
    } else {
        let why = "this node does not forward now; once it does, it is a router for every machine there";
        Finding::warn(FORWARD, seen, why).fix(fix)
    }
}

/// A rule of ours that an iptables up to 1.8.7 has saved without its mark.
fn opened(table: &str) -> Finding {
    let seen = format!("a rule of ours in chain FORWARD of table {table} accepts everything");
    let why = "its mark was lost when iptables rules were saved and restored: what the policy should drop is forwarded";
    Finding::fail(FORWARD, seen, why).fix("vlan-bridgectl repair")
}

/// Of a gateway without NAT: whose pods were all there before a policy of iptables' was, there is no rule of
/// ours for them. The ADD of the next one puts it in.
fn unmet<'a>(facts: &'a Facts, network: &'a Network) -> impl Iterator<Item = Finding> + 'a {
    let of = &network.config.network;
    let device = of.node_device();
    let is_attached = |link: &Link| attachment_of(link).is_some_and(|pod| pod.network == network.config.name);
    let is_concerned = of.is_gateway && !of.has_nat() && facts.attachments().any(is_attached);
    let chains = facts.forward_drops.iter().filter(move |chain| {
        is_concerned
            && network.has_family(chain.family == "ip6")
            && !chain.devices.contains(&of.node_device())
            && !chain.let_through.contains(&of.node_device())
    });
    chains.map(move |chain| {
        let ForwardChain { family, table, chain, .. } = chain;
        let program = if *family == "ip6" { "ip6tables" } else { "iptables" };
        let seen = format!("chain {chain} of table {family} {table} drops, and no rule there is about {device}");
        let why = "the policy came after the pods, which get no farther than this node: with the next one on the bridge all of them pass, for as long as it is there";
        ["-i", "-o"].iter().fold(Finding::warn(FORWARD, seen, why), |finding, way| {
            finding.fix(format!("{program} -I FORWARD {way} {device} -j ACCEPT"))
        })
    })
}

fn is_bridged_called(facts: &Facts) -> bool {
    ["iptables", "ip6tables"]
        .iter()
        .any(|key| facts.sysctls.get(&format!("bridge/bridge-nf-call-{key}")) == Some(1))
}

/// The devices whose packets go through chains of forwarding: of routed pods, and of bridged ones with
/// br_netfilter.
fn forwarded(facts: &Facts) -> BTreeSet<String> {
    let called = is_bridged_called(facts);
    let of = |network: &cni_conf::network::Network| {
        let is_routed = network.is_gateway || network.has_nat();
        let is_bridged = called && network.uplink.is_some();
        let routed = is_routed.then(|| network.node_device());
        routed.into_iter().chain(is_bridged.then(|| network.bridge.clone()))
    };
    facts.networks.iter().flat_map(|network| of(&network.config.network)).collect()
}

/// Where only an operator can write.
fn dropped_by_legacy(legacy: &Legacy, device: &str) -> Option<Finding> {
    let program = legacy.program;
    let rules = ["-i", "-o"].map(|way| format!("-A FORWARD {way} {device} -j ACCEPT"));
    let Some(chain) = &legacy.chain else {
        let seen = format!("legacy iptables filters, and {program} is not here to ask for its policy");
        let why = format!("if it is DROP, what {device} forwards is lost");
        let command = rules.map(|rule| format!("{program} {rule}")).join("; ");
        return Some(Finding::warn(FORWARD, seen, why).fix(command));
    };
    let has = |line: &str| chain.lines().any(|there| there == line);
    if !has("-P FORWARD DROP") || rules.iter().all(|rule| has(rule)) {
        return None;
    }
    let seen = format!("{program}: the policy of FORWARD is DROP, and no rule is about {device}");
    let why = "no rule of ours can meet it: what the device's pods send is lost";
    let missing = rules.into_iter().filter(|rule| !has(rule));
    Some(
        missing.fold(Finding::warn(FORWARD, seen, why), |finding, rule| {
            finding.fix(format!("{program} {rule}"))
        }),
    )
}

/// An accept in one table does not override another's drop.
fn dropped_by(chain: &ForwardChain, device: &str) -> Finding {
    let ForwardChain { family, table, chain, .. } = chain;
    let seen = format!("chain {chain} of table {family} {table} drops, and no rule there is about {device}");
    let why = "no rule of ours can meet it: what the device's pods send is lost";
    let finding = Finding::warn(FORWARD, seen, why);
    if table == "firewalld" {
        return finding
            .fix(format!("firewall-cmd --permanent --zone=trusted --add-interface={device}"))
            .fix("firewall-cmd --reload");
    }
    let rule = |way| format!("nft insert rule {family} {table} {chain} {way} {device} accept");
    finding.fix(rule("iifname")).fix(rule("oifname"))
}

/// The guard of each attached pod.
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
        return vec![Finding::ok(
            CHECK,
            format!("{}: nothing goes out in others' names", counted(pods.len(), "pod")),
        )];
    }
    let mut findings = Vec::new();
    if !open.is_empty() {
        let why = "a firewall's restart took it, or the network had none when the pod came: it may send in anybody's name";
        let fix = "vlan-bridgectl repair; a pod without a record has to be started anew";
        findings.push(Finding::fail(CHECK, format!("no guard for {}", shortened(&open)), why).fix(fix));
    }
    for (what, veths) in lost {
        let why =
            "somebody flushed rules or sets of ours: a pod may send in anybody's name, or nothing at all";
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
        let unknown =
            "what of ours is in the packet filter, and what of others drops what pods send, is not known";
        return vec![Finding::warn(CHECK, why, unknown).fix("run as root")];
    }
    if let Some(why) = &facts.filter_lacks {
        findings.push(
            Finding::fail(CHECK, why, "pods that need it are refused")
                .fix("modprobe -a nf_tables nft_chain_nat nft_nat nft_masq nft_fib_inet nft_ct nft_compat xt_mark xt_comment"),
        );
    }
    let mut broken: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (veth, what) in &facts.broken_rules {
        broken.entry(what).or_default().push(veth);
    }
    for (what, veths) in broken {
        let why = "a firewall's restart took them: the pod is cut off, or its host ports are";
        findings.push(
            Finding::fail(CHECK, format!("{}: {what}", shortened(&veths)), why).fix("vlan-bridgectl repair"),
        );
    }
    if findings.is_empty() && !facts.records.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("the rules of {} are there", counted(facts.records.len(), "pod")),
        ));
    }
    findings
}
