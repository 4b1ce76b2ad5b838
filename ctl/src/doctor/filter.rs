//! The packet filter: what of ours is in it, and what of others' drops pods' packets.

use vlan_bridge::guard::limits;
use vlan_bridge::link::Link;
use vlan_bridge::ownership::{Progress, attachment_of};

use super::finding::Finding;
use crate::facts::Facts;

/// Policies that drop what pods send, and whether it meets them.
pub(super) fn forwarding(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "forward";
    let bridged = facts.sysctls.get("bridge/bridge-nf-call-iptables") == Some(1);
    let routed = facts.networks.iter().any(|network| network.ours.network.is_gateway);
    let uplinks = facts.networks.iter().any(|network| network.ours.network.uplink.is_some());
    let mut findings = Vec::new();
    if bridged && uplinks {
        let why = "with br_netfilter each bridged frame goes through there: unless a rule accepts it, pods reach nobody";
        for table in &facts.forward_drops {
            findings.push(
                Finding::warn(CHECK, format!("bridge-nf-call-iptables is 1, and chain FORWARD of table {table} drops"), why)
                    .mend("sysctl -w net.bridge.bridge-nf-call-iptables=0, or iptables -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT"),
            );
        }
        if facts.legacy_filter {
            let seen = "bridge-nf-call-iptables is 1, and legacy iptables filters";
            findings.push(
                Finding::warn(CHECK, seen, why).mend(
                    "iptables-legacy -S FORWARD: its policy should be ACCEPT, or a rule accept the pods",
                ),
            );
        }
    }
    // Pods with NAT have a rule of ours in that chain; others have not.
    if routed && facts.records.is_empty() {
        for table in &facts.forward_drops {
            let seen = format!("chain FORWARD of table {table} drops");
            findings.push(
                Finding::warn(CHECK, seen, "pods of a bridge that is a gateway get no farther than this node")
                    .mend("\"ipMasq\": true in the list, or iptables -I FORWARD -i BRIDGE -j ACCEPT and the same with -o"),
            );
        }
    }
    if findings.is_empty() {
        let calls = if bridged { "on" } else { "off" };
        findings.push(Finding::ok(
            CHECK,
            format!("nothing drops what pods send; br_netfilter's iptables calls {calls}"),
        ));
    }
    findings
}

/// The guard of each attached pod.
pub(super) fn guard(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "guard";
    let guarded = |name: &str| {
        facts
            .networks
            .iter()
            .any(|network| network.ours.name == name && limits(&network.ours.network).is_some())
    };
    let pods: Vec<&Link> = facts
        .attachments()
        .filter(|link| {
            let of = attachment_of(link).filter(|attachment| attachment.progress(link) == Progress::Ready);
            of.is_some_and(|attachment| guarded(attachment.network))
        })
        .collect();
    if pods.is_empty() {
        return Vec::new();
    }
    let ports = facts.guarded.as_deref().unwrap_or_default();
    let open: Vec<&str> = pods
        .iter()
        .map(|link| link.name.as_str())
        .filter(|name| !ports.iter().any(|port| port == name))
        .collect();
    if open.is_empty() {
        return vec![Finding::ok(CHECK, format!("{} pods send what is their own", pods.len()))];
    }
    let why = "a firewall's restart took it, or the network had none when the pod came: it may send in anybody's name";
    let mend = "start or stop any pod: the next call of the plugin puts the rules back; a pod without a record has to be started anew";
    vec![Finding::fail(CHECK, format!("no guard for {}", open.join(", ")), why).mend(mend)]
}

/// Masquerading and host ports.
pub(super) fn rules(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "nat";
    let mut findings = Vec::new();
    if let Some(why) = &facts.filter_lacks {
        findings.push(
            Finding::fail(CHECK, why, "pods that need it are refused")
                .mend("modprobe -a nf_tables nft_chain_nat nft_masq nft_fib_inet nft_ct"),
        );
    }
    for (veth, what) in &facts.broken_rules {
        let why = "a firewall's restart took them: the pod is cut off, or its host ports are";
        findings.push(
            Finding::fail(CHECK, format!("{veth}: {what}"), why)
                .mend("start or stop any pod: the next call of the plugin puts all of them back"),
        );
    }
    if findings.is_empty() && !facts.records.is_empty() {
        findings.push(Finding::ok(CHECK, format!("the rules of {} pods are there", facts.records.len())));
    }
    findings
}
