//! The choice of addresses, the addresses that are never assigned, and the error if none is left.

use crate::ipam::Ipam;
use integration::eth0;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// ADDs until no address is left. Returns all addresses.
fn all(ipam: &Ipam) -> BTreeSet<String> {
    let mut given = BTreeSet::new();
    loop {
        let outcome = ipam.plugin().add(&eth0(&format!("all{}", given.len())));
        if !outcome.ok() {
            assert_eq!(outcome.error_code(), 11, "{outcome}");
            return given;
        }
        assert!(given.insert(outcome.result().address()), "given twice");
    }
}

#[track_caller]
fn gives(ipam: Value, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|addr| (*addr).to_owned()).collect();
    assert_eq!(all(&Ipam::new(ipam.clone())), expected, "{ipam}");
}

#[test]
fn gateway_network_broadcast_and_exclusions_are_never_given() {
    gives(
        json!({"subnet": "10.1.0.0/28", "gateway": "10.1.0.14", "exclude": ["10.1.0.4/30", "10.1.0.8/30", "10.1.0.2"]}),
        &["10.1.0.1", "10.1.0.3", "10.1.0.12", "10.1.0.13"],
    );
    gives(
        json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.3"}),
        &["10.1.0.2", "10.1.0.3"],
    );
    gives(
        json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.254", "rangeEnd": "10.1.0.255"}),
        &["10.1.0.254"],
    );
    gives(json!({"subnet": "10.1.0.0/31"}), &["10.1.0.1"]);
    gives(json!({"subnet": "2001:db8::/127", "gateway": "2001:db8::1"}), &["2001:db8::"]);
    gives(
        json!({"exclude": ["10.2.0.0/30", "10.1.0.2"], "ranges":
            [[{"subnet": "10.1.0.0/29", "exclude": ["10.1.0.4/31"]}, {"subnet": "10.2.0.0/29"}]]}),
        &["10.1.0.3", "10.1.0.6", "10.2.0.4", "10.2.0.5", "10.2.0.6"],
    );
}

#[test]
fn an_excluded_address_is_not_given_on_request_either() {
    let ipam = Ipam::new(json!({"subnet": "10.1.0.0/24", "exclude": ["10.1.0.8/30"]}));
    for ask in [eth0("c1").args("IP=10.1.0.9"), eth0("c1").capabilities(json!({"ips": ["10.1.0.11/24"]}))] {
        let outcome = ipam.plugin().add(&ask);
        assert_eq!(outcome.error_code(), 111, "{outcome}");
        assert!(outcome.error_text().contains("is excluded from 10.1.0.0/24"), "{outcome}");
    }
    assert!(ipam.leases().is_empty() && ipam.records().is_empty());
}

#[test]
fn what_is_excluded_later_is_not_given_again() {
    let conf = |exclude: Value| json!({"subnet": "10.1.0.0/29", "exclude": exclude});
    let ipam = Ipam::new(conf(json!([])));
    assert_eq!(all(&ipam).len(), 5);
    for i in 0..5 {
        ipam.plugin().del(&eth0(&format!("all{i}"))).expect_ok();
    }
    let later = ipam.with(conf(json!(["10.1.0.2/31"])));
    assert_eq!(all(&later).into_iter().collect::<Vec<_>>(), ["10.1.0.4", "10.1.0.5", "10.1.0.6"]);
}

#[test]
fn a_range_that_is_moved_keeps_nobody_from_giving_back() {
    let ipam = Ipam::new(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.5"}));
    assert_eq!(all(&ipam).len(), 4);
    let moved = ipam.with(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.4", "rangeEnd": "10.1.0.7"}));
    assert_eq!(moved.plugin().add(&eth0("m1")).result().address(), "10.1.0.6");
    moved.plugin().del(&eth0("all3")).expect_ok();
    moved.plugin().check(&eth0("all0"), &json!({})).expect_ok();
    assert_eq!(moved.plugin().add(&eth0("m2")).result().address(), "10.1.0.7");
    assert_eq!(moved.plugin().add(&eth0("m3")).result().address(), "10.1.0.5");
    // And back: this configuration knows the addresses that the other one assigned.
    let back = moved.with(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.5"}));
    assert_eq!(back.plugin().add(&eth0("b1")).error_code(), 11);
    back.plugin().del(&eth0("m3")).expect_ok();
    assert_eq!(back.plugin().add(&eth0("b2")).result().address(), "10.1.0.5");
}

#[test]
fn exhaustion_tells_how_each_range_is_used() {
    let ipam = Ipam::new(json!({"statusOnExhaustion": true, "ranges":
        [[{"subnet": "10.1.0.0/29", "exclude": ["10.1.0.2"]}, {"subnet": "10.2.0.0/30"}]]}));
    ipam.plugin().status().expect_ok();
    assert_eq!(all(&ipam).len(), 5);
    let expected = "no free address in network vlan136: 10.1.0.0/29: 4 used, 0 cooling, 0 quarantined of 4; \
                    10.2.0.0/30: 1 used, 0 cooling, 0 quarantined of 1";
    let outcome = ipam.plugin().add(&eth0("more"));
    assert_eq!((outcome.error_code(), outcome.json()["msg"].as_str().unwrap()), (11, expected));
    let outcome = ipam.plugin().status();
    assert_eq!((outcome.error_code(), outcome.json()["msg"].as_str().unwrap()), (50, expected));
    ipam.plugin().del(&eth0("all0")).expect_ok();
    ipam.plugin().status().expect_ok();
    // An ADD does not fail because of the cooldown.
    ipam.plugin().add(&eth0("more")).expect_ok();
}
