//! The packet filter: the plugin's rules, and foreign chains that pods' packets pass.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::Result;
use kernel::NetError;
use kernel::nft::{BaseChain, Nft, ReversePathFilter};
use kernel::nft::{HookPoint, TableFamily};
use vlan_bridge::boundary;
use vlan_bridge::guard::{self, GuardTable};
use vlan_bridge::nat::{self, BridgedDrop, Nat};

use crate::facts::{Facts, ForwardChain, Legacy};

pub(super) fn packet_filter(facts: &mut Facts) -> Result<()> {
    let denied = Nft::open().and_then(|nft| nft.hooked(HookPoint::Forward)).err().filter(NetError::denied);
    facts.filter_denied = denied.map(|why| why.to_string());
    if facts.filter_denied.is_some() {
        return Ok(());
    }
    for veth in facts.records.keys() {
        let broken = nat::difference(veth, true).unwrap_or_else(|error| Some(error.to_string()));
        facts.broken_rules.extend(broken.map(|what| (veth.clone(), what)));
    }
    let networks = || facts.networks.iter().map(|network| &network.config.network);
    let mut lacks = Ok(());
    if networks().any(|network| network.has_nat()) {
        lacks = Nat::open().and_then(|nat| nat.probe());
    }
    if networks().any(|network| guard::limits(network).is_some()) {
        lacks = lacks.and_then(|()| GuardTable::open()?.probe());
    }
    facts.filter_lacks = lacks.err().map(|error| error.to_string());
    facts.guarded = guard::ports().ok();
    // Without nf_tables there are no guards.
    facts.broken_guards =
        guard::broken(facts.attachments().map(|link| link.name.as_str())).unwrap_or_default();
    facts.open_uplinks = open_uplinks(facts);
    // Without nf_tables there are no such chains.
    if let Ok(chains) = Nft::open().and_then(|nft| forward_chains(&nft, &facts.devices())) {
        (facts.forward_drops, facts.forward_chains) = chains;
    }
    facts.reverse_path_filters =
        Nft::open().and_then(|nft| reverse_path_filters(&nft, facts)).unwrap_or_default();
    facts.accept_all_tables =
        nat::tables_accepting_everything().unwrap_or_default().iter().map(ToString::to_string).collect();
    facts.bridged_dropped = bridged_dropped(facts);
    facts.legacy = legacy();
    Ok(())
}

/// Forward chains with policy drop. First those of iptables-nft, in which the plugin can insert a rule,
/// then all others.
fn forward_chains(
    nft: &Nft,
    devices: &BTreeSet<String>,
) -> Result<(Vec<ForwardChain>, Vec<ForwardChain>), NetError> {
    let (mut drops, mut others) = (Vec::new(), Vec::new());
    for BaseChain { family, table, chain, drops: is_dropping } in nft.hooked(HookPoint::Forward)? {
        let is_iptables = family != TableFamily::Inet && table == "filter" && chain == "FORWARD";
        // firewalld drops by its last rule, not by policy, if an interface has no zone.
        if !is_dropping && table != "firewalld" {
            continue;
        }
        let mut known = BTreeSet::new();
        for device in devices {
            if nft.mentions(family, &table, device)? {
                known.insert(device.clone());
            }
        }
        let passes = |device: &&String| nat::is_accepted_by_our_rule(device, family).unwrap_or(false);
        let let_through = devices.iter().filter(|_| is_iptables).filter(passes).cloned().collect();
        let list = if is_iptables { &mut drops } else { &mut others };
        list.push(ForwardChain { family: family.name(), table, chain, devices: known, let_through });
    }
    Ok((drops, others))
}

/// The chains that filter reverse paths, each with the bridges that rules of its table name.
fn reverse_path_filters(
    nft: &Nft,
    facts: &Facts,
) -> Result<Vec<(ReversePathFilter, BTreeSet<String>)>, NetError> {
    let mut found = Vec::new();
    for filter in nft.reverse_path_filters()? {
        let mut known = BTreeSet::new();
        for device in facts.devices() {
            if nft.mentions(filter.family, &filter.table, &device)? {
                known.insert(device);
            }
        }
        found.push((filter, known));
    }
    Ok(found)
}

/// The devices without the rule that stops the node from forwarding for an uplink's network. Empty without
/// nf_tables: the ADD warns about that.
fn open_uplinks(facts: &Facts) -> BTreeSet<String> {
    let networks = facts.networks.iter().map(|network| &network.config.network);
    let open = |network: &cni_conf::network::Network| {
        boundary::open_devices(network, facts.has_pods(&network.bridge)).unwrap_or_default()
    };
    networks.flat_map(open).filter(|device| facts.link(device).is_some()).collect()
}

/// Bridges with an uplink and pods whose packets br_netfilter passes to a chain with policy drop, and for
/// which the plugin has no rule there.
fn bridged_dropped(facts: &Facts) -> Vec<(String, BridgedDrop)> {
    let mut dropped = Vec::new();
    for network in &facts.networks {
        let bridge = &network.config.network.bridge;
        if network.config.network.uplink.is_some() && facts.has_pods(bridge) {
            let addresses: Vec<IpAddr> = network.leases.held.iter().map(|(addr, _)| *addr).collect();
            let what = nat::bridged_difference(bridge, &addresses).ok().flatten();
            dropped.extend(what.map(|what| (bridge.clone(), what)));
        }
    }
    dropped
}

/// Runs the legacy programs only if the kernel has their filter table, because running them would create
/// it.
fn legacy() -> Vec<Legacy> {
    let programs =
        [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")].into_iter();
    let filters = programs.filter(|(names, _)| {
        let tables = fs::read_to_string(format!("/proc/net/{names}")).unwrap_or_default();
        tables.lines().any(|table| table == "filter")
    });
    let ask = |program| {
        let mut command = Command::new(program);
        command.args(["-w", "5", "-S", "FORWARD"]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        let output = command.output();
        let output = output.ok().filter(|output| output.status.success());
        let chain = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        Legacy { program, chain }
    };
    filters.map(|(_, program)| ask(program)).collect()
}
