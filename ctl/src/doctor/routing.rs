//! Reverse-path filtering, node addresses that pods of other nodes cannot reach because of it, and host
//! routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::link::{Address, Kind, Link};
use vlan_bridge::host_access::Missing;
use vlan_bridge::ownership::is_attachment;

use super::definitions;
use super::finding::Finding;
use super::uplink::DUMMY_ADDRESS;
use crate::facts::{Facts, MissingRoute};

const CHECK: &str = "rp_filter";

/// The main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

/// The effective filter, and each address of the node without a policy route.
pub(super) fn reverse_path(facts: &Facts) -> Vec<Finding> {
    let with_default: Vec<&Link> =
        facts.links.iter().filter(|link| facts.has_default_route(link, Some(MAIN))).collect();
    let mut findings = Vec::new();
    for (link, address) in
        facts.links.iter().flat_map(|link| facts.addresses(link).map(move |address| (link, address)))
    {
        let IpNet::V4(net) = address.net else { continue };
        let strict = facts.sysctls.rp_filter(&link.name) == 1;
        let on_default = with_default.iter().any(|other| other.index == link.index);
        if !strict || on_default || with_default.is_empty() || !is_node_address(facts, link, address) {
            continue;
        }
        if has_source_route(facts, link, net.addr().into()) {
            continue;
        }
        findings.push(asymmetric(facts, link, net));
    }
    if findings.is_empty() {
        let names: Vec<String> = with_default
            .iter()
            .map(|link| format!("{} {}", link.name, facts.sysctls.rp_filter(&link.name)))
            .collect();
        let names = if names.is_empty() { "no default route".to_owned() } else { names.join(", ") };
        let dropped =
            facts.rp_filtered.map_or(String::new(), |count| format!("; {count} packets dropped since boot"));
        findings.push(Finding::ok(CHECK, format!("{names}{dropped}")));
    }
    findings
}

/// With br_netfilter, a pod's packets to services, and replies for host ports, are checked against the
/// trunk bridge itself, which has no route to their sources. It must filter loosely, and needs an address
/// for that.
pub(super) fn loose_trunks(facts: &Facts) -> Vec<Finding> {
    if facts.sysctls.get("bridge/bridge-nf-call-iptables") != Some(1) {
        return Vec::new();
    }
    let with_nat = facts.records.values().filter(|record| !record.sources.is_empty());
    let trunks: BTreeSet<&str> = with_nat.filter_map(|record| record.pod.bridge.as_deref()).collect();
    let why = "br_netfilter is on, and reverse-path filtering silently drops pods' packets to services and from host ports there";
    let mut findings = Vec::new();
    for bridge in trunks.into_iter().filter_map(|name| facts.link(name)) {
        let (name, filter) = (&bridge.name, facts.sysctls.rp_filter(&bridge.name));
        if filter == 1 {
            let key = format!("net.ipv4.conf.{}.rp_filter", name.replace('.', "/"));
            findings.push(
                Finding::fail(
                    CHECK,
                    format!("{name} has strict rp_filter, and its pods use services or host ports"),
                    why,
                )
                .fix(format!("sysctl -w {key}=2")),
            );
        }
        let has_address = facts
            .addresses
            .iter()
            .any(|address| address.interface == bridge.index && address.net.addr().is_ipv4());
        if filter != 0 && !has_address {
            let seen = format!("{name} has no address, and its pods use services or host ports");
            findings.push(
                Finding::fail(CHECK, seen, why).fix(format!("ip addr add {DUMMY_ADDRESS}/32 dev {name}")),
            );
        }
    }
    findings
}

/// The node's host routes to its pods.
pub(super) fn host_access(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "hostaccess";
    let why = "the node and its pod do not reach each other: probes fail, services of the node too. vlan-bridgectl repair brings back \
               what was lost while the bridge was down, and so does the next ADD or DEL on this node. A pod from before the node had an \
               address of that family, or from before hostAccess, must be restarted";
    let judge = |lost: &MissingRoute| {
        let MissingRoute { veth, device, metric, mac, missing: Missing { address, source, is_route } } = lost;
        if *is_route {
            let seen = format!("the node's route to {address} by {device} is missing ({veth})");
            return Finding::fail(CHECK, seen, why).fix(format!(
                "ip route replace {address} dev {device} src {source} metric {metric} proto 117"
            ));
        }
        let seen = format!("the node's neighbour entry for {address} on {device} is missing ({veth})");
        let finding = Finding::fail(CHECK, seen, why);
        match mac {
            Some(mac) => {
                finding.fix(format!("ip neigh replace {address} lladdr {mac} dev {device} nud permanent"))
            }
            None => finding.fix("restart the pod"),
        }
    };
    facts.missing_routes.iter().map(judge).collect()
}

/// Whether this is an address of the node on a network shared with other hosts.
fn is_node_address(facts: &Facts, link: &Link, address: &Address) -> bool {
    let apart = address.net.prefix_len() >= 31 || address.net.addr().is_loopback();
    let of_a_bridge_alone = link.bridge().is_some() && !facts.ports(link).any(|port| !is_attachment(port));
    let other = matches!(&link.kind, Kind::Other(kind) if !kind.is_empty());
    link.up && !apart && !of_a_bridge_alone && !other
}

/// Whether a rule sends packets from an address to a table with a default route through its interface.
fn has_source_route(facts: &Facts, link: &Link, address: IpAddr) -> bool {
    let mut rules =
        facts.rules.iter().filter(|rule| rule.from == address || covers(link, facts, rule.from, address));
    rules.any(|rule| facts.has_default_route(link, Some(rule.table)))
}

/// Whether a rule is for the address's whole subnet. Such a rule has the network address.
fn covers(link: &Link, facts: &Facts, from: IpAddr, address: IpAddr) -> bool {
    facts.addresses(link).any(|own| own.net.addr() == address && own.net.network() == from)
}

fn asymmetric(facts: &Facts, link: &Link, net: ipnet::Ipv4Net) -> Finding {
    let (name, address, table) = (&link.name, net.addr(), table_of(link));
    // The router of a network without a default route is unknown. It is nearly always the first address.
    let router = net.hosts().find(|host| *host != address).unwrap_or(address);
    let seen = format!(
        "{address} on {name}: the default route is on another interface, rp_filter is strict, and there is no source rule"
    );
    let why = "packets from pods of other nodes arrive on one interface and would be answered through another: they are silently dropped";
    let ends = [address.to_string(), router.to_string()];
    let of_program = definitions::policy_routing_fix(facts, name, [&ends[0], &ends[1]], table);
    let finding = Finding::fail(CHECK, seen, why)
        .fix(format!(
            "ip route add default via {router} dev {name} table {table}   # {router}: the router of {}",
            net.trunc()
        ))
        .fix(format!("ip rule add from {address} lookup {table}"));
    // The program that manages the interface removes routes and rules of `ip` at its next restart.
    of_program.into_iter().fold(finding, Finding::fix)
}

/// The VLAN ID as the table ID, as is common practice.
fn table_of(link: &Link) -> u32 {
    match link.kind {
        Kind::Vlan { id, .. } if !(253..=255).contains(&id) => id.into(),
        _ => 1000 + link.index,
    }
}
