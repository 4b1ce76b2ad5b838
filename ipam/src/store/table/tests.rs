//! Tests of [`RangeTable`], each with its own file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::collections::BTreeSet;

use super::*;

struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Place(std::env::temp_dir().join(format!("ipam-table-{}-{next}", std::process::id())))
    }

    fn make(&self, span: &str, held: &[&str], last: Option<&str>, now: u32) -> RangeTable {
        let held = held.iter().map(|addr| ip(addr)).collect();
        RangeTable::make(&self.0, AddressRange::parse(span).unwrap(), &held, Fresh::After(last.map(ip)), now)
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Takes addresses until there is none left, as claims do.
fn take_all(table: &mut RangeTable, refused: &str) -> Vec<String> {
    let offered = |addr| if refused.parse() == Ok(addr) { Offer::NotUntil(addr) } else { Offer::Yes };
    let mut taken = Vec::new();
    loop {
        let fresh = table.fresh(offered).unwrap();
        let next = fresh.or_else(|| table.longest_free(offered).unwrap().map(|rested| rested.addr));
        let Some(addr) = next else { return taken };
        table.hold(addr).unwrap();
        taken.push(addr.to_string().rsplit(['.', ':']).next().unwrap().to_owned());
    }
}

#[test]
fn fresh_ones_first_and_then_the_longest_free() {
    let place = Place::new();
    let mut table = place.make("10.0.0.1-10.0.0.6", &[], None, 0);
    assert_eq!(take_all(&mut table, "10.0.0.3"), ["1", "2", "4", "5", "6"]);
    for (addr, now) in [("10.0.0.5", 10), ("10.0.0.1", 20), ("10.0.0.4", 30)] {
        table.free(ip(addr), now).unwrap();
    }
    // Requested from the middle of the queue, and released again.
    table.hold(ip("10.0.0.1")).unwrap();
    table.free(ip("10.0.0.1"), 40).unwrap();
    table.flush().unwrap();
    let mut table = RangeTable::open(&place.0, AddressRange::parse("10.0.0.1-10.0.0.6").unwrap()).unwrap();
    assert_eq!(take_all(&mut table, ""), ["5", "4", "1"], "3 was passed");
}

#[test]
fn goes_on_behind_the_last_one() {
    let place = Place::new();
    let mut table = place.make("10.0.0.1-10.0.0.6", &["10.0.0.5", "10.9.9.9"], Some("10.0.0.3"), 0);
    assert_eq!(take_all(&mut table, ""), ["4", "6", "1", "2", "3"]);
    let mut table = Place::new().make("10.0.0.1-10.0.0.6", &[], Some("2001:db8::4"), 0);
    assert_eq!(take_all(&mut table, "")[0], "1");
}

#[test]
fn made_anew_it_keeps_the_order() {
    let place = Place::new();
    let mut table = place.make("10.0.0.1-10.0.0.6", &[], None, 0);
    take_all(&mut table, "");
    for (addr, now) in [("10.0.0.5", 10), ("10.0.0.1", 20), ("10.0.0.4", 30)] {
        table.free(ip(addr), now).unwrap();
    }
    table.flush().unwrap();
    // Another program took 1 and released 3, and a kill tore the queue.
    let mut bytes = std::fs::read(&place.0).unwrap();
    bytes[16..32].fill(0);
    std::fs::write(&place.0, bytes).unwrap();
    let held = ["10.0.0.1", "10.0.0.2", "10.0.0.6"];
    let mut table = place.make("10.0.0.1-10.0.0.6", &held, None, 50);
    assert_eq!(take_all(&mut table, ""), ["5", "4", "3"]);
}

#[test]
fn a_long_run_of_held_addresses_is_passed_in_one_step() {
    let place = Place::new();
    let held: BTreeSet<IpAddr> =
        (0..60_000u32).map(|i| Ipv4Addr::from_bits(0x0a00_0001 + i).into()).collect();
    let span = AddressRange::parse("10.0.0.1-10.0.255.254").unwrap();
    let mut table = RangeTable::make(&place.0, span, &held, Fresh::After(None), 0).unwrap();
    let asked = std::cell::Cell::new(0);
    let first = table.fresh(|_| {
        asked.set(asked.get() + 1);
        Offer::Yes
    });
    assert_eq!((first.unwrap(), asked.get()), (Some(ip("10.0.234.97")), 2));
}

#[test]
fn a_huge_range_costs_little() {
    let place = Place::new();
    let mut table = place.make("2001:db8::1-2001:db8::ffff:ffff:ffff:ffff", &["2001:db8::1"], None, 0);
    let offered = |_| Offer::Yes;
    assert_eq!(table.fresh(offered).unwrap(), Some(ip("2001:db8::2")));
    for addr in ["2001:db8::ffff:0:0:0", "2001:db8::2"] {
        table.hold(ip(addr)).unwrap();
        table.free(ip(addr), 7).unwrap();
    }
    assert_eq!(table.longest_free(offered).unwrap(), Some(FreedAddress { addr: ip("2001:db8::2"), at: 7 }));
    assert!(std::fs::metadata(&place.0).unwrap().len() < 100);
}

#[test]
fn what_is_no_table_is_none() {
    let place = Place::new();
    let span = AddressRange::parse("10.0.0.1-10.0.0.6").unwrap();
    assert!(RangeTable::open(&place.0, span).is_none());
    for bytes in [&b""[..], b"vbrange1", &[0; 200], &[0xff; 200]] {
        std::fs::write(&place.0, bytes).unwrap();
        assert!(RangeTable::open(&place.0, span).is_none());
        assert_eq!(take_all(&mut place.make("10.0.0.1-10.0.0.6", &[], None, 0), "").len(), 6);
    }
    for name in ["", "a-b", "10.0.0.1", "10.0.0.1-2001:db8::1", "10.0.0.2-10.0.0.1"] {
        assert_eq!(AddressRange::parse(name), None);
    }
}
