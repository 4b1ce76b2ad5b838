//! The cost of a call does not depend on the number of leases. It is counted in system calls, not in time.

use crate::ipam::Ipam;
use integration::{Call, Scratch, eth0};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

const CROWD: u32 = 20_000;

/// The number of each system call. Those of the memory allocator do not count.
fn counted(call: &Call<'_>) -> BTreeMap<String, u32> {
    let scratch = Scratch::new("strace");
    let log = scratch.path().join("log");
    call.run_under(&["strace", "-qq", "-e", "trace=!%memory", "-o", log.to_str().unwrap()]).expect_ok();
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        if let Some((name, _)) = line.split_once('(') {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

/// ADD, CHECK and DEL, after a first call has read all leases.
fn costs(ipam: &Ipam, id: &str) -> [BTreeMap<String, u32>; 3] {
    ipam.plugin().add(&eth0("first")).expect_ok();
    ipam.plugin().del(&eth0("first")).expect_ok();
    ipam.plugin().add(&eth0("second")).expect_ok();
    ["ADD", "CHECK", "DEL"].map(|verb| counted(&ipam.plugin().call(verb, &eth0(id))))
}

#[test]
fn add_check_and_del_make_the_same_system_calls_however_many_are_held() {
    for (subnet, gateway) in [("10.0.0.0/8", "10.0.0.1"), ("10.1.0.0/16", "10.1.0.1")] {
        let ipam = || Ipam::new(json!({"subnet": subnet, "gateway": gateway}));
        let (empty, crowded) = (ipam(), ipam());
        crowded.crowd(CROWD);
        let [without, with] = [costs(&empty, "c1"), costs(&crowded, "c1")];
        for (verb, (without, with)) in ["ADD", "CHECK", "DEL"].iter().zip(without.iter().zip(&with)) {
            assert_eq!(with, without, "{verb} with {CROWD} held and with none in {subnet}");
            assert!(
                !with.keys().any(|name| name.starts_with("getdents")),
                "{verb} reads a directory: {with:?}"
            );
        }
        let total: u32 = with[0].values().sum();
        assert!(total < 150, "{total} system calls for an ADD: {:?}", with[0]);
    }
}

#[test]
fn a_v6_network_is_a_normal_range() {
    let ipam = Ipam::new(json!({"subnet": "2001:db8::/64"}));
    assert_eq!(ipam.plugin().add(&eth0("c1")).result().address(), "2001:db8::2");
    let requested = eth0("c2").args("IP=2001:db8::ffff:0:0:1");
    assert_eq!(ipam.plugin().add(&requested).result().address(), "2001:db8::ffff:0:0:1");
    assert_eq!(ipam.plugin().add(&eth0("c3")).result().address(), "2001:db8::3");
    for id in ["c1", "c2", "c3"] {
        ipam.plugin().del(&eth0(id)).expect_ok();
    }
    assert!(ipam.leases().is_empty() && ipam.records().is_empty());
    let table = fs::metadata(ipam.side().join("ranges/2001:db8::1-2001:db8::ffff:ffff:ffff:ffff")).unwrap();
    assert!(table.len() < 4096, "{} bytes", table.len());
}

#[test]
fn the_longest_free_address_comes_first() {
    let ipam = Ipam::until(5);
    for (id, addr) in [("c2", "10.1.0.2"), ("c3", "10.1.0.3"), ("c4", "10.1.0.4")] {
        assert_eq!(ipam.plugin().add(&eth0(id)).result().address(), addr);
    }
    for id in ["c3", "c2", "c4"] {
        ipam.plugin().del(&eth0(id)).expect_ok();
    }
    // Unused addresses come first, then released ones in the order of their release.
    for addr in ["10.1.0.5", "10.1.0.3", "10.1.0.2", "10.1.0.4"] {
        assert_eq!(ipam.plugin().add(&eth0(&format!("d{}", &addr[7..]))).result().address(), addr);
    }
    assert_eq!(ipam.plugin().add(&eth0("d6")).error_code(), 11);
}

#[test]
fn requested_addresses_leave_the_order_of_the_others() {
    let ipam = Ipam::until(4);
    for id in ["c2", "c3", "c4"] {
        ipam.plugin().add(&eth0(id)).expect_ok();
    }
    for id in ["c2", "c3", "c4"] {
        ipam.plugin().del(&eth0(id)).expect_ok();
    }
    let requested = eth0("d3").args("IP=10.1.0.3");
    assert_eq!(ipam.plugin().add(&requested).result().address(), "10.1.0.3");
    ipam.plugin().del(&requested).expect_ok();
    for addr in ["10.1.0.2", "10.1.0.4", "10.1.0.3"] {
        assert_eq!(ipam.plugin().add(&eth0(&format!("e{}", &addr[7..]))).result().address(), addr);
    }
}
