//! Leases, and the answers to probes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kernel::ask::Answers;
use vlan_bridge_ipam::store::{Holder, Known, Owner, StoreError, Usage};

use super::super::addresses;
use super::{complaints, macs, told};
use crate::facts::{Facts, Modules};

const POD: &str = "172.20.56.16";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn held(container: &str) -> (IpAddr, Known) {
    let owner = Owner { container_id: container.into(), ifname: "eth0".into() };
    (ip(POD), Known { holder: Holder::Attachment(owner), record: None, elsewhere: None })
}

fn answering(change: impl FnOnce(&mut Answers)) -> impl FnOnce(&mut Facts) {
    move |facts| change(facts.networks[0].probe.as_mut().unwrap().answers.as_mut().unwrap())
}

#[test]
fn gateways_that_do_not_answer() {
    told(
        addresses::vlan,
        answering(BTreeMap::clear),
        "fail",
        &[
            "the gateway 172.20.56.1 does not answer br136",
            "allow the VLAN on the switch's ports",
            "ipam.gateway",
        ],
    );
    let without_vlans = |facts: &mut Facts| {
        facts.modules = Modules { loadable: Some([].into()), ..Modules::default() };
        answering(BTreeMap::clear)(facts);
    };
    told(addresses::vlan, without_vlans, "warn", &["fix the finding modules first"]);
    told(
        addresses::vlan,
        |facts| facts.networks[0].probe.as_mut().unwrap().other_mac_answers = Ok(Answers::new()),
        "fail",
        &["172.20.56.1 answers br136 with its own MAC, and not with another", "forged transmits"],
    );
}

#[test]
fn probes_that_could_not_be_sent() {
    let failed = |facts: &mut Facts| {
        facts.networks[0].probe.as_mut().unwrap().answers =
            Err("No buffer space available (os error 105)".into());
    };
    told(
        addresses::vlan,
        failed,
        "warn",
        &["cannot probe from br136: No buffer space available", "fix: run as root, with the interface up"],
    );
    let without_members = |facts: &mut Facts| {
        failed(facts);
        facts.bonds.get_mut("bond0").unwrap().members.clear();
    };
    told(
        addresses::vlan,
        without_members,
        "warn",
        &["cannot probe from br136: bond0 has no member that is up", "fix the findings of member first"],
    );
    let complaint = complaints(addresses::vlan, without_members).remove(0);
    assert!(!complaint.contains("105") && !complaint.contains("root"), "{complaint}");
    told(
        addresses::vlan,
        |facts| facts.networks[0].probe.as_mut().unwrap().other_mac_answers = Err("denied".into()),
        "warn",
        &["cannot probe from br136 with another MAC: denied"],
    );
}

#[test]
fn addresses_that_two_hosts_use() {
    let two = |facts: &mut Facts| {
        facts.networks[0].leases.held = vec![held("web")];
        answering(|answers| {
            answers.insert(ip(POD), macs(&["02:00:00:00:00:2a", "02:00:00:00:00:2b"]));
        })(facts);
    };
    told(
        addresses::vlan,
        two,
        "fail",
        &[
            "172.20.56.16 is in use by 02:00:00:00:00:2a and 02:00:00:00:00:2b",
            "two hosts use it",
            "ipam.exclude",
        ],
    );
    let foreign = answering(|answers| {
        answers.insert(ip(POD), macs(&["02:00:00:00:00:2b"]));
    });
    told(addresses::vlan, foreign, "fail", &["no lease here has it", "compare the nodes' slices"]);
}

#[test]
fn ranges_that_are_used_up() {
    let usage = |used, quarantined| {
        move |facts: &mut Facts| {
            let range = "172.20.56.16/28".to_owned();
            facts.networks[0].leases.usage =
                vec![Usage { range, used, cooling: 0, quarantined, total: 16, shared: None }];
        }
    };
    assert_eq!(complaints(addresses::leases, usage(14, 0)), [""; 0]);
    told(
        addresses::leases,
        usage(14, 1),
        "warn",
        &["v: 172.20.56.16/28: 14 used", "at most a tenth is free"],
    );
    told(addresses::leases, usage(15, 1), "fail", &["no address is free", "give the node a larger slice"]);
}

#[test]
fn leases_that_nobody_uses_or_can_read() {
    let fault = |change: fn(&mut Facts), words: &[&str]| told(addresses::leases, change, "warn", words);
    fault(
        |facts| facts.networks[0].leases.held = vec![held("gone")],
        &["172.20.56.16 is held by", "gone", "fix: vlan-bridge-ipam release 172.20.56.16 --network v"],
    );
    assert_eq!(
        complaints(addresses::leases, |facts| facts.networks[0].leases.held = vec![held("web")]),
        [""; 0]
    );
    fault(
        |facts| {
            let known = Known { holder: Holder::Unreadable, record: None, elsewhere: None };
            facts.networks[0].leases.held = vec![(ip(POD), known)];
        },
        &["the lease of 172.20.56.16 cannot be read", "vlan-bridge-ipam release 172.20.56.16 --network v"],
    );
    fault(
        |facts| {
            let (addr, known) = held("web");
            facts.networks[0].leases.held = vec![(addr, Known { elsewhere: Some("abc".into()), ..known })];
        },
        &["v: 1 lease of another machine, abc", "release --machine abc --network v"],
    );
    fault(
        |facts| {
            facts.networks[0].leases.quarantined = vec![(ip(POD), "02:00:00:00:00:2b".parse().unwrap(), 90)]
        },
        &["172.20.56.16 is quarantined: 02:00:00:00:00:2b uses it", "ends in 90 s", "ipam.exclude"],
    );
    fault(
        |facts| facts.orphans = vec![("/var/lib/cni/networks/old".into(), 2)],
        &["/var/lib/cni/networks/old: 2 leases", "vlan-bridge-ipam check --network old"],
    );
    let unreadable = |facts: &mut Facts| {
        facts.networks[0].leases.unreadable = Some(StoreError::WorldWritable("/leases".into()));
    };
    told(addresses::leases, unreadable, "fail", &["/leases is writable by everybody", "owner and mode"]);
}
