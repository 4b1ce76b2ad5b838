//! Addresses of a shared pool: what pods get out of the agent's files. Here the tests write these files, in
//! the place of an agent.

use crate::ipam::{Ipam, NETWORK};
use integration::{GrantFiles, Plugin, Pod, Site, eth0, set_keys};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// How long an ADD takes at most besides its wait, on a busy machine.
const SLOW: Duration = Duration::from_secs(30);

fn files(ipam: &Ipam) -> GrantFiles<'_> {
    GrantFiles { node: &ipam.node, network: NETWORK, set: 0 }
}

/// The section `pool` of a node whose ADDs do not wait.
fn pool() -> Value {
    json!({"etcd": {"endpoints": ["http://127.0.0.1:1"]}, "wait": 0})
}

/// A node with four home addresses.
fn shared() -> Ipam {
    Ipam::new(json!({"subnet": "10.1.0.0/24", "slice": "10.1.0.16/30", "pool": pool()}))
}

/// Which addresses the node gives until it has none.
#[track_caller]
fn given(ipam: &Ipam, prefix: &str) -> Vec<String> {
    let mut given = Vec::new();
    loop {
        let outcome = ipam.plugin().add(&eth0(&format!("{prefix}{}", given.len())));
        if !outcome.ok() {
            assert_eq!(outcome.error_code(), 11, "{outcome}");
            given.sort();
            return given;
        }
        given.push(outcome.result().address());
    }
}

const HOME: [&str; 4] = ["10.1.0.16", "10.1.0.17", "10.1.0.18", "10.1.0.19"];

#[test]
fn home_addresses_are_given_before_an_agent_has_come() {
    let ipam = shared();
    assert_eq!(given(&ipam, "c"), HOME);
    let full = ipam.plugin().add(&eth0("more"));
    assert!(full.error_text().contains("the agent has granted nothing yet"), "{full}");
    let without_home = Ipam::new(json!({"subnet": "10.1.0.0/24", "pool": pool()}));
    assert_eq!(given(&without_home, "c"), [""; 0]);
}

#[test]
fn leased_addresses_need_a_confirmation_of_this_boot() {
    let ipam = shared();
    files(&ipam).grant(&["10.1.0.16-10.1.0.19"], &["10.1.0.200"], &[]);
    assert_eq!(given(&ipam, "home"), HOME);
    let refused = ipam.plugin().add(&eth0("c1"));
    assert!(refused.error_text().contains("1 not confirmed by the store"), "{refused}");
    files(&ipam).confirm_in("00000000-0000-0000-0000-000000000001");
    assert_eq!(ipam.plugin().add(&eth0("c1")).error_code(), 11);
    files(&ipam).confirm();
    assert_eq!(ipam.plugin().add(&eth0("c1")).result().address(), "10.1.0.200");
}

#[test]
fn an_address_that_is_lent_is_not_given_after_the_pool_left_the_list() {
    let ipam = shared();
    files(&ipam).grant(&["10.1.0.16", "10.1.0.18-10.1.0.19"], &[], &[]);
    let ipam = ipam.with(json!({"subnet": "10.1.0.0/24", "slice": "10.1.0.16/30"}));
    assert_eq!(given(&ipam, "c"), ["10.1.0.16", "10.1.0.18", "10.1.0.19"]);
    let refused = ipam.plugin().add(&eth0("d"));
    assert!(refused.error_text().contains("the list has no ipam.pool: put it back"), "{refused}");
    let asked = ipam.plugin().add(&eth0("d").args("IP=10.1.0.17"));
    assert!(asked.error_text().contains("10.1.0.17 is not granted to this node"), "{asked}");
}

#[test]
fn an_address_goes_back_to_the_stock_only_if_it_is_granted() {
    let ipam = shared();
    files(&ipam).grant(&["10.1.0.16-10.1.0.17"], &[], &[]);
    assert_eq!(given(&ipam, "c"), ["10.1.0.16", "10.1.0.17"]);
    files(&ipam).grant(&["10.1.0.17-10.1.0.18"], &[], &[]);
    ipam.plugin().check(&eth0("c0"), &json!({})).expect_ok();
    assert_eq!(given(&ipam, "d"), ["10.1.0.18"]);
    for id in ["c0", "c1"] {
        ipam.plugin().del(&eth0(id)).expect_ok();
    }
    assert_eq!(given(&ipam, "e"), ["10.1.0.17"]);
    assert_eq!(ipam.leases().keys().collect::<Vec<_>>(), ["10.1.0.17", "10.1.0.18"]);
}

#[test]
fn torn_grants_are_named_and_nothing_is_given() {
    let ipam = shared();
    files(&ipam).grant(&["10.1.0.16-10.1.0.19"], &[], &[]);
    ipam.plugin().add(&eth0("c1")).expect_ok();
    let path = files(&ipam).path("grants");
    let whole = fs::read_to_string(&path).unwrap();
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        let refused = ipam.plugin().add(&eth0("c2"));
        assert_eq!(refused.error_code(), 5, "{refused}");
        assert!(refused.error_text().contains(path.to_str().unwrap()), "{refused}");
    }
    ipam.plugin().del(&eth0("c1")).expect_ok();
    assert!(ipam.leases().is_empty());
    fs::write(&path, &whole).unwrap();
    assert_eq!(given(&ipam, "d"), HOME);
}

#[test]
fn a_requested_address_has_to_be_granted() {
    let ipam = shared();
    let asked = |addr: &str| ipam.plugin().add(&eth0("c1").args(&format!("IP={addr}")));
    let refused = asked("10.1.0.77");
    assert_eq!(refused.error_code(), 11, "{refused}");
    assert!(refused.error_text().contains("the requested address 10.1.0.77 is not granted"), "{refused}");
    files(&ipam).grant(&["10.1.0.16"], &["10.1.0.77"], &[]);
    assert!(asked("10.1.0.77").error_text().contains("10.1.0.77 is not confirmed by the store"));
    assert!(ipam.leases().is_empty() && ipam.records().is_empty());
    files(&ipam).confirm();
    assert_eq!(asked("10.1.0.77").result().address(), "10.1.0.77");
}

#[test]
fn a_dry_add_without_an_agent_ends_in_time_and_names_the_socket() {
    let mut ipam = json!({"subnet": "10.1.0.0/24", "pool": pool()});
    ipam["pool"]["wait"] = 2.into();
    let ipam = Ipam::new(ipam);
    let began = Instant::now();
    let refused = ipam.plugin().add(&eth0("c1"));
    let took = began.elapsed();
    assert_eq!(refused.error_code(), 11);
    let socket = ipam.node.data_dir().join(".vlan-bridge/.agent.sock");
    let words = format!("; the agent does not run ({}: ", socket.display());
    assert!(refused.error_text().contains(&words), "{refused}");
    assert!(Duration::from_secs(2) <= took && took < SLOW, "{took:?}");
}

#[test]
fn each_range_set_has_its_own_grants() {
    let sets =
        json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "2001:db8::/112", "rangeEnd": "2001:db8::2"}]]);
    let ipam = Ipam::new(json!({"ranges": sets, "pool": pool()}));
    assert_eq!(ipam.plugin().add(&eth0("c1")).error_code(), 11);
    assert!(ipam.leases().is_empty());
    files(&ipam).grant(&["10.1.0.200-10.1.0.201"], &[], &[]);
    let both = |id: &str| ipam.plugin().add(&eth0(id)).result().addresses();
    assert_eq!(both("c1"), ["10.1.0.200", "2001:db8::2"]);
    let second = GrantFiles { set: 1, ..files(&ipam) };
    second.grant(&[], &["2001:db8::77"], &[]);
    second.confirm();
    assert_eq!(both("c2"), ["10.1.0.201", "2001:db8::77"]);
}

fn with_pool<'a>(site: &'a Site, detection: &str) -> Plugin<'a> {
    let mut conf = site.conf();
    set_keys(&mut conf["ipam"], &json!({"pool": pool(), "conflictDetection": detection}));
    site.node.plugin(&site.node.list(Site::NETWORK, &[conf]))
}

#[test]
fn an_address_of_a_lost_node_is_given_only_after_a_silent_probe() {
    let site = Site::new();
    let files = GrantFiles { node: &site.node, network: Site::NETWORK, set: 0 };
    files.grant(&[], &["172.20.56.200"], &["172.20.56.200"]);
    files.confirm();
    let pod = Pod::new();
    let unprobed = with_pool(&site, "off").add(&pod.eth0());
    assert_eq!(unprobed.error_code(), 11);
    assert!(unprobed.error_text().contains("1 not given without a probe"), "{unprobed}");
    let asked = with_pool(&site, "off").add(&pod.eth0().args("IP=172.20.56.200"));
    assert!(asked.error_text().contains("the network is not probed"), "{asked}");
    site.router.ip("addr add 172.20.56.200/24 dev port");
    let answered = with_pool(&site, "on").add(&pod.eth0());
    assert_eq!(answered.error_code(), 11);
    assert!(answered.error_text().contains(&site.router.mac("port")), "{answered}");
    assert!(site.node.leases(Site::NETWORK).is_empty());
    site.router.ip("addr del 172.20.56.200/24 dev port");
    let asked = with_pool(&site, "on").add(&pod.eth0().args("IP=172.20.56.200"));
    assert_eq!(asked.result().addresses(), ["172.20.56.200"]);
}
