//! Bonds, NICs and sub-interfaces: whether they exist and have a carrier, LACP, and MTUs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use cni_conf::uplink::UplinkPort;
use kernel::link::{Kind, Link};

use super::finding::Finding;
use crate::bond::BondState;
use crate::facts::{Facts, is_bond};

/// The bonds and NICs that are uplinks of networks.
pub(super) fn masters(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "uplink";
    let judge = |name: &str| match facts.link(name) {
        None => Finding::fail(CHECK, format!("there is no interface {name}"), "every ADD fails")
            .fix(format!("create {name}, or set another uplink.master in the list")),
        Some(link) if !link.up => {
            Finding::fail(CHECK, format!("{name} is down"), "no pod reaches its network")
                .fix(format!("ip link set {name} up"))
        }
        Some(link) if has_no_active_member(facts, link) => {
            let seen = format!("{name} has no member that is up");
            Finding::fail(CHECK, seen, "no pod reaches its network").fix("see the findings of member")
        }
        Some(link) if !link.carrier => {
            let seen = format!("{name} has no carrier");
            Finding::fail(CHECK, seen, "no pod reaches its network").fix("look at cables and switch ports")
        }
        Some(link) => Finding::ok(CHECK, format!("{name}, {}, up", link.kind_name())),
    };
    facts.masters().into_iter().map(judge).collect()
}

/// Whether this is a bond that cannot send, because no member is up.
pub(super) fn has_no_active_member(facts: &Facts, link: &Link) -> bool {
    is_bond(link) && facts.bonds.get(&link.name).is_some_and(|bond| bond.ready().next().is_none())
}

/// The mode, members and partner of these bonds.
pub(super) fn bonds(facts: &Facts) -> Vec<Finding> {
    let links = facts.masters().into_iter().filter_map(|name| facts.link(name)).filter(|link| is_bond(link));
    links.flat_map(|link| bond(link, facts.bonds.get(&link.name).cloned().unwrap_or_default())).collect()
}

fn bond(link: &Link, bond: BondState) -> Vec<Finding> {
    const CHECK: &str = "bond";
    let (name, mut findings) = (&link.name, Vec::new());
    let Kind::Bond(options) = &link.kind else { return findings };
    let mode = options.mode.as_str();
    if mode == "balance-tlb" || mode == "balance-alb" {
        let why =
            "it sends frames with the MAC of another NIC: the switch learns bridged pods on the wrong port";
        findings.push(
            Finding::fail(CHECK, format!("{name} is in mode {mode}"), why)
                .fix("use 802.3ad or active-backup (the bond must be down for that)"),
        );
    }
    if options.fail_over_mac != "none" && !options.fail_over_mac.is_empty() {
        let seen = format!("{name} has fail_over_mac {}", options.fail_over_mac);
        let why = "its MAC changes with the active NIC, and the bridge keeps the old MAC";
        findings.push(
            Finding::warn(CHECK, seen, why)
                .fix("fail_over_mac none (the bond must have no members for that)"),
        );
    }
    if bond.mii_interval == 0 && bond.arp_interval == 0 {
        let seen = format!("{name} does not monitor its members' links (miimon 0)");
        findings.push(
            Finding::fail(CHECK, seen, "a failed link is not noticed, and packets sent there are lost")
                .fix(format!("ip link set {name} type bond miimon 100")),
        );
    }
    findings.extend(members(name, &bond));
    if bond.lacks_partner() {
        let seen = format!("{name} has no LACP partner");
        let why = "the switch's ports are not an LACP group: the switch forwards to one NIC, or to none";
        findings.push(
            Finding::fail(CHECK, seen, why).fix("make the switch's ports one LACP group (mode active)"),
        );
    }
    if findings.is_empty() {
        let members: Vec<String> = bond
            .members
            .iter()
            .map(|member| format!("{} {} {}", member.name, member.speed, member.duplex))
            .collect();
        let partner = bond.partner.as_ref().map_or(String::new(), |mac| format!(", partner {mac}"));
        findings.push(Finding::ok(CHECK, format!("{name}: {mode}, {}{partner}", members.join(", "))));
    }
    findings
}

fn members(bond_name: &str, bond: &BondState) -> Vec<Finding> {
    const CHECK: &str = "member";
    let mut findings = Vec::new();
    // A bond accepts only a NIC that is down.
    let add = format!("ip link set NIC down; ip link set NIC master {bond_name}");
    match bond.members.len() {
        0 => {
            let seen = format!("{bond_name} has no member");
            findings.push(Finding::fail(CHECK, seen, "no pod reaches its network").fix(add));
        }
        1 => {
            let seen = format!("{bond_name} has 1 member");
            findings.push(Finding::warn(CHECK, seen, "there is no redundancy").fix(add));
        }
        _ => {}
    }
    for member in &bond.members {
        let name = &member.name;
        if !member.up {
            let why = "the bond uses the remaining members; another failure may cut it off";
            findings.push(
                Finding::warn(CHECK, format!("{name} of {bond_name} has no link"), why)
                    .fix(format!("ip link set {name} up; then look at cable and switch port")),
            );
            continue;
        }
        if member.duplex == "half" {
            findings.push(
                Finding::fail(
                    CHECK,
                    format!("{name} is at half duplex"),
                    "collisions: slow, and frames are lost",
                )
                .fix(format!("ethtool -s {name} autoneg on")),
            );
        }
        if bond.aggregator.is_some() && member.aggregator != bond.aggregator && !bond.lacks_partner() {
            let why = "it carries no traffic: its switch port is in another LACP group, or in none";
            findings.push(
                Finding::warn(CHECK, format!("{name} is not in the active aggregator of {bond_name}"), why)
                    .fix("put the switch's ports into one LACP group"),
            );
        }
    }
    let speeds: BTreeSet<&str> = bond.ready().map(|member| member.speed.as_str()).collect();
    if speeds.len() > 1 {
        let speeds: Vec<&str> = speeds.into_iter().collect();
        let seen = format!("members of {bond_name} run at {}", speeds.join(" and "));
        findings.push(
            Finding::warn(
                CHECK,
                seen,
                "LACP does not use the slower member, and other modes are limited by it",
            )
            .fix("look at cables and switch ports"),
        );
    }
    findings
}

/// The MTUs from the pods down to the NICs. None may be smaller than the one above it.
pub(super) fn mtu(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    let mut findings = Vec::new();
    for network in &facts.networks {
        let Some(uplink) = &network.config.network.uplink else { continue };
        let (bridge, port) = (facts.link(&network.config.network.bridge), facts.link(uplink.port_name()));
        let master = facts.link(&uplink.master);
        let pods = bridge.into_iter().flat_map(|bridge| {
            facts.ports(bridge).filter(|port| {
                port.kind == Kind::Veth && Some(port.index) != master.map(|master| master.index)
            })
        });
        let members =
            master.into_iter().filter(|master| is_bond(master)).flat_map(|master| facts.ports(master));
        let mut steps: Vec<(&Link, &Link)> = Vec::new();
        // A pod's frames are no larger than its own MTU. The bridge's MTU matters only to the node.
        steps.extend(pods.filter_map(|pod| Some((pod, port?))));
        steps.extend(bridge.zip(port));
        steps.extend(port.zip(master).filter(|(port, master)| port.index != master.index));
        steps.extend(members.filter_map(|member| Some((master?, member))));
        let too_small = steps.iter().filter(|(upper, lower)| lower.mtu < upper.mtu);
        let before = findings.len();
        findings.extend(too_small.map(|(upper, lower)| {
            let seen =
                format!("{} has MTU {}, {} below it has {}", upper.name, upper.mtu, lower.name, lower.mtu);
            Finding::fail(CHECK, seen, "larger frames are silently dropped: connections open and then hang")
                .fix(format!("ip link set {} mtu {}", lower.name, upper.mtu))
        }));
        if findings.len() == before
            && let Some(lowest) = steps.last()
        {
            findings.push(Finding::ok(
                CHECK,
                format!("{} from the pods of {} to {}", lowest.0.mtu, network.config.name, uplink.master),
            ));
        }
    }
    findings
}

/// The address that the plugin gives a trunk bridge, so that the kernel filters loosely there: the dummy
/// address of RFC 7600 section 6.
pub(super) const DUMMY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));

/// Addresses and default routes on interfaces that should have none.
pub(super) fn misplaced_addresses(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "addresses";
    let mut bare: BTreeSet<&str> = BTreeSet::new();
    for network in &facts.networks {
        let Some(uplink) = &network.config.network.uplink else { continue };
        bare.insert(&network.config.network.bridge);
        bare.insert(uplink.port_name());
        if !matches!(uplink.port, UplinkPort::SubInterface { .. }) {
            bare.insert(&uplink.master);
        }
        if let Some(master) = facts.link(&uplink.master).filter(|link| is_bond(link)) {
            bare.extend(facts.ports(master).map(|member| member.name.as_str()));
        }
    }
    let mut findings = Vec::new();
    for link in bare.iter().filter_map(|name| facts.link(name)) {
        let name = &link.name;
        for address in facts.addresses(link).filter(|address| address.net.addr() != DUMMY_ADDRESS) {
            let why = "the node is then a host on the pods' network, or unreachable at this address";
            findings.push(
                Finding::warn(CHECK, format!("{name} has the address {}", address.net), why)
                    .fix(format!("ip addr del {} dev {name}", address.net)),
            );
        }
        if facts.has_default_route(link, None) {
            findings.push(
                Finding::fail(
                    CHECK,
                    format!("a default route uses {name}"),
                    "the node's own traffic uses the pods' network",
                )
                .fix(format!("ip route del default dev {name}")),
            );
        }
    }
    if findings.is_empty() && !bare.is_empty() {
        findings
            .push(Finding::ok(CHECK, format!("none on {}", bare.into_iter().collect::<Vec<_>>().join(", "))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use kernel::link;

    fn bond_link(mode: &str, fail_over_mac: &str) -> Link {
        Link {
            index: 2,
            name: "bond0".into(),
            kind: Kind::Bond(link::Bond { mode: mode.into(), fail_over_mac: fail_over_mac.into() }),
            mtu: 1500,
            up: true,
            carrier: true,
            oper_up: true,
            ..Link::default()
        }
    }

    #[test]
    fn each_fault_of_a_bond_is_named() {
        let check =
            |mode: &str, policy: &str, change: fn(&mut BondState), expected: Option<(Severity, &str)>| {
                let mut seen = BondState::healthy();
                change(&mut seen);
                let findings = bond(&bond_link(mode, policy), seen);
                let (severity, text) =
                    expected.unwrap_or((Severity::Ok, "bond0: 802.3ad, nic0 10000 Mbps full"));
                assert_eq!(findings.len(), 1, "{findings:?}");
                assert_eq!(findings[0].severity, severity, "{findings:?}");
                assert!(findings[0].to_string().contains(text), "{findings:?}");
            };
        use Severity::{Fail, Warn};
        check("802.3ad", "none", |_| {}, None);
        check("balance-alb", "none", |_| {}, Some((Fail, "mode balance-alb")));
        check("active-backup", "active", |_| {}, Some((Warn, "fail_over_mac active")));
        check("802.3ad", "none", |bond| bond.mii_interval = 0, Some((Fail, "miimon 100")));
        check("802.3ad", "none", |bond| bond.members.truncate(1), Some((Warn, "bond0 has 1 member")));
        check(
            "802.3ad",
            "none",
            |bond| bond.members[1].up = false,
            Some((Warn, "nic1 of bond0 has no link")),
        );
        check(
            "802.3ad",
            "none",
            |bond| bond.members[1].duplex = "half".into(),
            Some((Fail, "nic1 is at half duplex")),
        );
        check(
            "802.3ad",
            "none",
            |bond| bond.members[0].aggregator = Some("2".into()),
            Some((Warn, "nic0 is not in the active aggregator")),
        );
        check(
            "802.3ad",
            "none",
            |bond| bond.members[0].speed = "1000 Mbps".into(),
            Some((Warn, "1000 Mbps and 10000 Mbps")),
        );
        check(
            "802.3ad",
            "none",
            |bond| bond.partner = Some("00:00:00:00:00:00".into()),
            Some((Fail, "no LACP partner")),
        );
    }
}
