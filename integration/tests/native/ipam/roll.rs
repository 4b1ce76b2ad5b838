//! To host-local and back with running pods. Only `"type"` changes.

use crate::ipam::Ipam;
use integration::eth0;
use serde_json::json;
use std::collections::BTreeSet;

/// Adds these containers, and expects addresses that no other container has.
#[track_caller]
fn add(ipam: &Ipam, plugin: &integration::Plugin<'_>, ids: &[&str], held: &mut BTreeSet<String>) {
    for id in ids {
        let addr = plugin.add(&eth0(id)).result().address();
        assert!(held.insert(addr.clone()), "{addr} was given twice");
        assert_eq!(ipam.leases()[&addr], format!("{id}\r\neth0"));
    }
    assert_eq!(ipam.leases().len(), held.len());
}

#[track_caller]
fn del(ipam: &Ipam, plugin: &integration::Plugin<'_>, ids: &[&str], held: &mut BTreeSet<String>) {
    for id in ids {
        plugin.del(&eth0(id)).expect_ok();
        let left = ipam.leases();
        assert!(!left.values().any(|lease| lease == &format!("{id}\r\neth0")), "DEL of {id} left its lease");
        held.retain(|addr| left.contains_key(addr));
    }
    assert_eq!(ipam.leases().len(), held.len());
}

#[test]
fn from_host_local_to_ours_and_back_and_forward_again() {
    let ipam = Ipam::until(13);
    let (ours, theirs, mut held) = (ipam.plugin(), ipam.host_local(), BTreeSet::new());
    add(&ipam, &theirs, &["h1", "h2", "h3"], &mut held);
    add(&ipam, &ours, &["o1", "o2", "o3"], &mut held);
    assert_eq!(ours.add(&eth0("h1")).error_code(), 110, "it holds an address already");
    del(&ipam, &ours, &["h2"], &mut held);
    ours.check(&eth0("h1"), &json!({})).expect_ok();
    // Back.
    del(&ipam, &theirs, &["o2", "h3"], &mut held);
    add(&ipam, &theirs, &["h4", "h5"], &mut held);
    assert!(!theirs.add(&eth0("o1")).ok(), "host-local sees ours");
    theirs.check(&eth0("o1"), &json!({})).expect_ok();
    // Forward again.
    add(&ipam, &ours, &["o4", "o5", "o6"], &mut held);
    assert_eq!(ours.check(&eth0("o2"), &json!({})).error_code(), 101);
    del(&ipam, &ours, &["h1", "h4", "o1", "o3", "o2"], &mut held);
    del(&ipam, &theirs, &["o4", "h5"], &mut held);
    del(&ipam, &ours, &["o5", "o6"], &mut held);
    assert!(held.is_empty() && ipam.records().is_empty());
}

#[test]
fn the_last_address_is_given_once_whoever_asks() {
    let ipam = Ipam::until(5);
    let (ours, theirs, mut held) = (ipam.plugin(), ipam.host_local(), BTreeSet::new());
    for round in 0..4 {
        let ids: Vec<String> = (0..4).map(|i| format!("c{round}x{i}")).collect();
        for (i, id) in ids.iter().enumerate() {
            add(&ipam, if (i + round) % 2 == 0 { &ours } else { &theirs }, &[id], &mut held);
        }
        assert_eq!(ours.add(&eth0("more")).error_code(), 11);
        assert!(!theirs.add(&eth0("more")).ok());
        for (i, id) in ids.iter().enumerate() {
            del(&ipam, if i % 2 == 0 { &theirs } else { &ours }, &[id], &mut held);
        }
    }
}

#[test]
fn an_address_that_host_local_gave_to_another_since_is_not_freed() {
    let ipam = Ipam::until(2);
    let (ours, theirs) = (ipam.plugin(), ipam.host_local());
    ours.add(&eth0("c1")).expect_ok();
    theirs.del(&eth0("c1")).expect_ok();
    theirs.add(&eth0("c2")).expect_ok();
    ours.del(&eth0("c1")).expect_ok();
    assert_eq!(ipam.leases()["10.1.0.2"], "c2\r\neth0");
    ours.del(&eth0("c2")).expect_ok();
    assert!(ipam.leases().is_empty());
}

#[test]
fn very_old_leases_name_the_container_alone() {
    let ipam = Ipam::until(5);
    std::fs::create_dir_all(ipam.store()).unwrap();
    for (addr, id) in [("10.1.0.2", "old1"), ("10.1.0.3", "old2")] {
        std::fs::write(ipam.store().join(addr), id).unwrap();
    }
    assert_eq!(ipam.plugin().add(&eth0("c1")).result().address(), "10.1.0.4");
    ipam.plugin().check(&eth0("old1"), &json!({})).expect_ok();
    ipam.plugin().del(&eth0("old1")).expect_ok();
    ipam.host_local().del(&eth0("old2")).expect_ok();
    assert_eq!(ipam.leases().keys().collect::<Vec<_>>(), ["10.1.0.4"]);
}

#[test]
fn everything_of_ours_lies_outside_of_host_locals_directory() {
    let ipam = Ipam::until(5);
    ipam.plugin().add(&eth0("c1")).expect_ok();
    let entries = std::fs::read_dir(ipam.store()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["10.1.0.2", "last_reserved_ip.0", "lock"]);
    assert!(ipam.side().starts_with(ipam.node.data_dir()));
    // No network can have this name.
    let outcome = ipam.plugin().with("name", json!(".vlan-bridge")).add(&eth0("c2"));
    assert_eq!(outcome.error_code(), 7, "{outcome}");
}

/// The next address follows host-local's last one, in any range of the set, and then wraps around.
#[test]
fn the_last_address_of_host_local_counts_in_later_ranges_too() {
    for held in [true, false] {
        let ipam = Ipam::new(json!({"cooldown": 0,
            "ranges": [[{"subnet": "10.1.0.0/29"}, {"subnet": "10.1.1.0/29"}, {"subnet": "10.1.2.0/29"}]]}));
        let given: Vec<String> =
            (0..7).map(|i| ipam.host_local().add(&eth0(&format!("h{i}"))).result().address()).collect();
        assert_eq!(given.last().unwrap(), "10.1.1.3", "{given:?}");
        if held {
            // Held addresses are passed over.
            let next: Vec<String> =
                (0..8).map(|i| ipam.plugin().add(&eth0(&format!("o{i}"))).result().address()).collect();
            assert_eq!(next[..3], ["10.1.1.4", "10.1.1.5", "10.1.1.6"], "{next:?}");
            assert_eq!(next[3..], ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"], "{next:?}");
        } else {
            for i in 0..7 {
                ipam.host_local().del(&eth0(&format!("h{i}"))).expect_ok();
            }
            let next: Vec<String> =
                (0..9).map(|i| ipam.plugin().add(&eth0(&format!("o{i}"))).result().address()).collect();
            assert_eq!(next[..3], ["10.1.1.4", "10.1.1.5", "10.1.1.6"], "{next:?}");
        }
    }
}

/// A lease that only names its container belongs to the attachment whose record names the lease.
#[test]
fn a_lease_that_was_written_over_in_place_is_released() {
    for text in ["c1", "c1\n", "c1\r\n"] {
        let ipam = Ipam::until(5);
        let held = ipam.plugin().add(&eth0("c1")).result().address();
        let other = ipam.plugin().add(&eth0("c12")).result().address();
        std::fs::write(ipam.store().join(&held), text).unwrap();
        ipam.plugin().check(&eth0("c1"), &json!({})).expect_ok();
        ipam.plugin().del(&eth0("c1")).expect_ok();
        assert_eq!(ipam.leases().into_keys().collect::<Vec<_>>(), [other], "{text:?}");
        assert_eq!(ipam.records(), ["c12:eth0"]);
        // The lease now belongs to another container, so it stays.
        let held = ipam.plugin().add(&eth0("c1")).result().address();
        std::fs::write(ipam.store().join(&held), "c9").unwrap();
        ipam.plugin().del(&eth0("c1")).expect_ok();
        assert_eq!(ipam.leases()[&held], "c9");
    }
}
