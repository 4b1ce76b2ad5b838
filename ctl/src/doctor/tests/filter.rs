//! The packet filter: rules of the plugins, guards, and chains of others.

use std::collections::BTreeSet;

use kernel::nft::{ReversePathFilter, TableFamily};
use vlan_bridge::nat::BridgedDrop;

use super::super::filter;
use super::{complaints, healthy, told, web};
use crate::facts::{Facts, ForwardChain, Legacy};

const REPAIR: &str = "fix: vlan-bridgectl repair";

fn chain(table: &str) -> ForwardChain {
    let (table, chain) = (table.to_owned(), "FORWARD".to_owned());
    ForwardChain { family: "ip", table, chain, devices: BTreeSet::new(), let_through: BTreeSet::new() }
}

/// br_netfilter passes bridged packets to iptables.
fn called(facts: &mut Facts) {
    facts.sysctls.0.insert("bridge/bridge-nf-call-iptables".into(), 1);
}

#[test]
fn rules_of_the_plugins_that_are_gone() {
    let fail = |change: fn(&mut Facts), words: &[&str]| told(filter::rules, change, "fail", words);
    fail(
        |facts| facts.broken_rules = vec![(web(), "host port 8080/tcp is gone".into())],
        &[&format!("{}: host port 8080/tcp is gone", web()), REPAIR],
    );
    fail(
        |facts| {
            let of = |veth: &str| (veth.to_owned(), "chain output is gone".to_owned());
            facts.broken_rules = vec![of("a"), of("b"), of("c"), of("d"), of("e")];
        },
        &["a, b, c, 2 more: chain output is gone", REPAIR],
    );
    fail(
        |facts| facts.filter_lacks = Some("this kernel has no nft_masq".into()),
        &["this kernel has no nft_masq", "modprobe -a nf_tables"],
    );
    let denied = |facts: &mut Facts| facts.filter_denied = Some("not permitted".into());
    told(filter::rules, denied, "warn", &["not permitted", "is unknown", "fix: run as root"]);
    let mut facts = healthy();
    denied(&mut facts);
    assert!(filter::forwarding(&facts).is_empty() && filter::guard(&facts).is_empty(), "nothing is known");
}

#[test]
fn guards_that_are_gone() {
    let fail = |change: fn(&mut Facts), words: &[&str]| told(filter::guard, change, "fail", words);
    let open = format!("no guard for {}", web());
    fail(|facts| facts.guarded = Some(Vec::new()), &[&open, "can spoof any address", REPAIR]);
    fail(|facts| facts.guarded = None, &[&open, REPAIR]);
    fail(
        |facts| facts.broken_guards = vec![(web(), "chain mac is gone or changed".into())],
        &["chain mac is gone or changed", "were flushed", REPAIR],
    );
    let other = |facts: &mut Facts| facts.broken_guards = vec![("veth0".into(), "a chain is gone".into())];
    assert_eq!(complaints(filter::guard, other), [""; 0], "no pod of a guarded network");
}

#[test]
fn chains_of_others_that_drop() {
    let warn = |change: fn(&mut Facts), words: &[&str]| told(filter::forwarding, change, "warn", words);
    let fail = |change: fn(&mut Facts), words: &[&str]| told(filter::forwarding, change, "fail", words);
    warn(
        |facts| facts.forward_chains = vec![chain("mine")],
        &[
            "chain FORWARD of table ip mine drops",
            "no rule for cni0",
            "nft insert rule ip mine FORWARD iifname cni0 accept",
        ],
    );
    warn(
        |facts| facts.forward_chains = vec![chain("firewalld")],
        &["firewall-cmd --permanent --zone=trusted --add-interface=cni0", "firewall-cmd --reload"],
    );
    warn(
        |facts| facts.forward_drops = vec![chain("filter")],
        &["the policy is newer than the pods", "iptables -I FORWARD -i cni0 -j ACCEPT"],
    );
    let known = |facts: &mut Facts| {
        facts.forward_drops =
            vec![ForwardChain { let_through: ["cni0".to_owned()].into(), ..chain("filter") }];
    };
    assert_eq!(complaints(filter::forwarding, known), [""; 0]);
    warn(
        |facts| {
            let chain = Some("-P FORWARD DROP\n-A FORWARD -i cni0 -j ACCEPT\n".to_owned());
            facts.legacy = vec![Legacy { program: "iptables-legacy", chain }];
        },
        &["the policy of FORWARD is DROP", "fix: iptables-legacy -A FORWARD -o cni0 -j ACCEPT"],
    );
    warn(
        |facts| facts.legacy = vec![Legacy { program: "iptables-legacy", chain: None }],
        &["iptables-legacy is not installed", "iptables-legacy -A FORWARD -i cni0 -j ACCEPT"],
    );
    fail(
        |facts| facts.accept_all_tables = vec!["ip filter".into()],
        &["in chain FORWARD of table ip filter accepts everything", REPAIR],
    );
    fail(
        |facts| facts.open_uplinks = ["br136".to_owned()].into(),
        &["no rule for br136", "bypassing the firewall", REPAIR],
    );
    warn(
        |facts| {
            facts.sysctls.0.clear();
            facts.open_uplinks.insert("br136".into());
        },
        &["no rule for br136", "forwarding is off now", REPAIR],
    );
}

#[test]
fn bridged_packets_that_are_dropped() {
    let dropped = |is_doubtful| {
        move |facts: &mut Facts| {
            let what = "chain FORWARD drops".to_owned();
            facts.bridged_dropped = vec![("br136".into(), BridgedDrop { what, is_doubtful })];
        }
    };
    told(filter::forwarding, dropped(false), "fail", &["chain FORWARD drops", REPAIR, "next ADD on br136"]);
    told(filter::forwarding, dropped(true), "warn", &["chain FORWARD drops", "unless one accepts them"]);
    let filtering = |table: &'static str, family| {
        move |facts: &mut Facts| {
            called(facts);
            let (table, chain) = (table.to_owned(), "PREROUTING".to_owned());
            let filter = ReversePathFilter { family, table, chain, ipv4: true, ipv6: true, strict: true };
            facts.reverse_path_filters = vec![(filter, BTreeSet::new())];
        }
    };
    told(
        filter::forwarding,
        filtering("raw", TableFamily::Ipv4),
        "fail",
        &[
            "bridge-nf-call-iptables is 1",
            "drops packets on br136",
            "iptables -t raw -I PREROUTING -i br136 -j ACCEPT",
        ],
    );
    told(filter::forwarding, filtering("firewalld", TableFamily::Inet), "fail", &["IPv6_rpfilter=no"]);
    told(
        filter::forwarding,
        filtering("mine", TableFamily::Inet),
        "fail",
        &["nft insert rule inet mine PREROUTING iifname br136 accept"],
    );
}
