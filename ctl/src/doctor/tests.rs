//! The checks over values: a healthy node, and each fault of it.

mod addresses;
mod agent;
mod filter;
mod links;
mod lists;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cni_conf::cni::result::Route;
use cni_conf::cni::version::Version;
use kernel::ask::Vantage;
use kernel::link::{self, Address, Installed, Kind, Link};
use serde_json::{Value, json};
use vlan_bridge::ownership::{Attachment, NODE_ALIAS};
use vlan_bridge_ipam::store::Usage;

use super::{CHECKS, Finding, Severity};
use crate::bond::BondState;
use crate::facts::{Facts, Leases, Modules, NetworkState, Plugin, ProbeResult, Sysctls};
use crate::lists::{self as network_lists, ListFile};
use crate::neighbours::NeighbourTable;
use crate::runtimes::Runtime;

const LIST: &str = "/etc/cni/net.d/10-v.conflist";

/// A network behind bond0, whose pods use host ports, and a gateway of this node alone.
fn list() -> Value {
    json!({"cniVersion": "1.0.0", "name": "v", "plugins": [
        {"type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "bond0", "vlan": 136},
         "capabilities": {"portMappings": true},
         "ipam": {"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "slice": "172.20.56.16/28",
                  "gateway": "172.20.56.1"}},
    ]})
}

fn gateway_list() -> Value {
    json!({"cniVersion": "1.0.0", "name": "local", "plugins": [
        {"type": "vlan-bridge", "bridge": "cni0", "isGateway": true,
         "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/16"}},
    ]})
}

fn network(list: &Value) -> NetworkState {
    let config = network_lists::check(list).unwrap().remove(0);
    let usage =
        Usage { range: "a range".into(), used: 1, cooling: 0, quarantined: 0, total: 16, shared: None };
    let leases = Leases { usage: vec![usage], ..Leases::default() };
    NetworkState { config, path: LIST.into(), entry: Value::Null, leases, status: Some(Ok(())), probe: None }
}

fn link(index: u32, name: &str, kind: Kind) -> Link {
    let (name, mtu) = (name.to_owned(), 1500);
    Link {
        index,
        name,
        kind,
        mtu,
        up: true,
        carrier: true,
        oper_up: true,
        forwarding: true,
        ..Link::default()
    }
}

/// A finished pod's veth.
fn pod(index: u32, network: &str, container: &str, bridge: u32) -> Link {
    let attachment = Attachment::new(network, container, "eth0");
    let alias = Some(attachment.alias_when_ready());
    Link { alias, master: Some(bridge), ..link(index, &attachment.host_interface(), Kind::Veth) }
}

/// The name of the veth of the pod `web` behind bond0.
fn web() -> String {
    Attachment::new("v", "web", "eth0").host_interface()
}

fn links() -> Vec<Link> {
    let nic = |index, name| Link { master: Some(4), ..link(index, name, Kind::default()) };
    let bond = link::Bond { mode: "802.3ad".into(), fail_over_mac: "none".into() };
    let bridge = || Kind::Bridge(link::Bridge::default());
    let ours = |link: Link| Link { alias: Some(NODE_ALIAS.into()), accept_ra: Some(0), ..link };
    let vlan = link(5, "bond0.136", Kind::Vlan { id: 136, protocol: 0x8100 });
    vec![
        nic(2, "nic0"),
        nic(3, "nic1"),
        link(4, "bond0", Kind::Bond(bond)),
        ours(Link { master: Some(6), parent: Some(4), ..vlan }),
        ours(link(6, "br136", bridge())),
        ours(link(7, "cni0", bridge())),
        pod(8, "v", "web", 6),
        pod(9, "local", "job", 7),
        link(10, "eth0", Kind::default()),
    ]
}

fn address(interface: u32, net: &str) -> Address {
    let (net, off) = (net.parse().unwrap(), false);
    Address {
        interface,
        net,
        link_local: off,
        tentative: off,
        duplicate: off,
        secondary: off,
        deprecated: off,
        dynamic: off,
    }
}

fn default_route(interface: u32) -> Installed {
    let route =
        Route { table: Some(254), ..Route::to("0.0.0.0/0".parse().unwrap(), "10.52.0.1".parse().ok()) };
    Installed { interface: Some(interface), route }
}

fn containerd() -> Runtime {
    Runtime {
        name: "containerd",
        program: "containerd",
        version: Some("1.7.1".into()),
        runs: true,
        files: Vec::new(),
        bin_dirs: vec!["/opt/cni/bin".into()],
        conf_dir: "/etc/cni/net.d".into(),
        cni: Version::V1_0_0,
        backend: None,
        needs_loopback: true,
        serves_cri: true,
    }
}

fn plugin(name: &str) -> Plugin {
    let path = Some(PathBuf::from("/opt/cni/bin").join(name));
    Plugin { name: name.into(), path, executable: true, version: Some(Ok(env!("CARGO_PKG_VERSION").into())) }
}

fn list_file(path: &str, content: Value) -> ListFile {
    ListFile { path: path.into(), content: Ok(content), misnamed: None }
}

/// The gateway answers, to any MAC.
fn probed() -> ProbeResult {
    let answers = || BTreeMap::from([("172.20.56.1".parse().unwrap(), macs(&["02:00:00:00:00:01"]))]);
    let from = Vantage { interface: "br136".into(), tag: None };
    ProbeResult { from, answers: Ok(answers()), other_mac_answers: Ok(answers()) }
}

fn macs(texts: &[&str]) -> BTreeSet<cni_conf::cni::mac::MacAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn healthy() -> Facts {
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let modules = named(&["bridge", "veth", "bonding", "8021q"]);
    let sysctls = [("ipv4/ip_forward", 1), ("ipv6/conf/all/forwarding", 1), ("ipv4/conf/all/rp_filter", 1)];
    let table = |family| NeighbourTable { family, entries: 3, limit: 4096, fulls: 0 };
    let both = vec![NetworkState { probe: Some(probed()), ..network(&list()) }, network(&gateway_list())];
    Facts {
        links: links(),
        addresses: vec![address(10, "10.52.0.10/24"), address(7, "10.22.0.1/16")],
        routes: vec![default_route(10)],
        bonds: BTreeMap::from([("bond0".to_owned(), BondState::healthy())]),
        sysctls: Sysctls(sysctls.map(|(key, value)| (key.to_owned(), value)).into()),
        modules: Modules { present: modules.clone(), at_boot: modules, ..Modules::default() },
        runtimes: vec![containerd()],
        bin_dirs: vec!["/opt/cni/bin".into()],
        folders: vec![("/etc/cni/net.d".into(), vec![list_file(LIST, list())])],
        networks: both,
        plugins: vec![plugin("vlan-bridge"), plugin("vlan-bridge-ipam")],
        guarded: Some(vec![web()]),
        neighbours: cni_conf::family::Family::BOTH.map(table).into(),
        ..Facts::default()
    }
}

type Check = fn(&Facts) -> Vec<Finding>;

/// The findings of a check that are not ok, after a change of the healthy node.
fn complaints(check: Check, change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = healthy();
    change(&mut facts);
    let found = check(&facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
    found.map(|finding| finding.to_string()).collect()
}

/// A change leads to one complaint, with this severity and all these words.
#[track_caller]
fn told(check: Check, change: impl FnOnce(&mut Facts), severity: &str, words: &[&str]) {
    let found = complaints(check, change);
    assert_eq!(found.len(), 1, "{words:?}: {found:#?}");
    assert!(found[0].starts_with(severity), "{}", found[0]);
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in {}", found[0]);
    }
}

/// The link of a name, to change it.
fn at<'a>(facts: &'a mut Facts, name: &str) -> &'a mut Link {
    facts.links.iter_mut().find(|link| link.name == name).unwrap()
}

#[test]
fn a_healthy_node_has_no_complaint() {
    let facts = healthy();
    let mut spoke = BTreeSet::new();
    for check in CHECKS {
        for finding in check(&facts) {
            assert_eq!(finding.severity, Severity::Ok, "{finding}");
            spoke.insert(finding.to_json()["check"].as_str().unwrap_or_default().to_owned());
        }
    }
    let expected = [
        "addresses",
        "bond",
        "bridge",
        "definitions",
        "duplicates",
        "forward",
        "guard",
        "ipam",
        "lists",
        "modules",
        "mtu",
        "neighbours",
        "plugins",
        "ports",
        "rp_filter",
        "runtimes",
        "settings",
        "status",
        "uplink",
        "vlan",
    ];
    let silent: Vec<&str> = expected.into_iter().filter(|check| !spoke.contains(*check)).collect();
    assert_eq!(silent, [""; 0], "these said nothing");
}
