//! Tests of [`Range`] and [`RangeSet`].

use serde_json::{Value, json};

use super::*;

fn read(keys: &Value) -> Result<(Range, Vec<String>), CniError> {
    let mut warnings = Vec::new();
    let range = Range::from_section(&Section::new(keys.as_object().unwrap(), "ipam"), &mut warnings)?;
    Ok((range, warnings))
}

fn range(keys: &Value) -> Range {
    read(keys).unwrap_or_else(|error| panic!("{keys}: {error}")).0
}

fn set(keys: &[Value]) -> Result<RangeSet, CniError> {
    RangeSet::new("ipam.ranges[0]", keys.iter().map(range).collect())
}

#[test]
fn bounds_gateway_and_capacity() {
    let check = |keys: Value, first: &str, last: &str, gateway: &str, capacity: u128| {
        let range = range(&keys);
        let gateway_found = range.gateway.map_or("none".into(), |gateway| gateway.to_string());
        let found = (range.first.to_string(), range.last.to_string(), gateway_found);
        assert_eq!(found, (first.into(), last.into(), gateway.into()), "{keys}");
        assert_eq!(RangeSet(vec![range]).capacity(), capacity, "{keys}");
    };
    check(json!({"subnet": "10.0.0.0/24"}), "10.0.0.1", "10.0.0.254", "10.0.0.1", 253);
    check(json!({"subnet": "10.0.0.0/24", "gateway": ""}), "10.0.0.1", "10.0.0.254", "10.0.0.1", 253);
    check(
        json!({"subnet": "10.0.0.0/24", "gateway": "10.0.0.254"}),
        "10.0.0.1",
        "10.0.0.254",
        "10.0.0.254",
        253,
    );
    check(
        json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.20"}),
        "10.0.0.10",
        "10.0.0.20",
        "10.0.0.1",
        11,
    );
    // Every address of a slice inside a larger subnet is usable, except the subnet's own ends and the
    // gateway.
    let slice = |slice: &str| json!({"subnet": "172.20.56.0/24", "slice": slice, "gateway": "172.20.56.1"});
    check(slice("172.20.56.16/28"), "172.20.56.16", "172.20.56.31", "172.20.56.1", 16);
    check(slice("172.20.56.0/28"), "172.20.56.1", "172.20.56.15", "172.20.56.1", 14);
    check(slice("172.20.56.240/28"), "172.20.56.240", "172.20.56.254", "172.20.56.1", 15);
    check(slice("172.20.56.0/24"), "172.20.56.1", "172.20.56.254", "172.20.56.1", 253);
    check(slice("172.20.56.9/32"), "172.20.56.9", "172.20.56.9", "172.20.56.1", 1);
    // Point-to-point and single addresses.
    check(json!({"subnet": "10.0.0.0/30"}), "10.0.0.1", "10.0.0.2", "10.0.0.1", 1);
    check(json!({"subnet": "10.0.0.0/31"}), "10.0.0.0", "10.0.0.1", "10.0.0.0", 1);
    check(json!({"subnet": "10.0.0.0/31", "gateway": "10.0.0.1"}), "10.0.0.0", "10.0.0.1", "10.0.0.1", 1);
    check(json!({"subnet": "10.0.0.7/32"}), "10.0.0.7", "10.0.0.7", "none", 1);
    check(json!({"subnet": "2001:db8::/127"}), "2001:db8::", "2001:db8::1", "2001:db8::", 1);
    check(json!({"subnet": "2001:db8::7/128"}), "2001:db8::7", "2001:db8::7", "none", 1);
    check(
        json!({"subnet": "2001:db8::/127", "gateway": "fe80::1"}),
        "2001:db8::",
        "2001:db8::1",
        "fe80::1",
        2,
    );
    // v6 has no broadcast address.
    check(
        json!({"subnet": "2001:db8::/64"}),
        "2001:db8::1",
        "2001:db8::ffff:ffff:ffff:ffff",
        "2001:db8::1",
        (1 << 64) - 2,
    );
    let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    check(json!({"subnet": "::/0"}), "::1", all, "::1", u128::MAX - 1);
    check(json!({"subnet": "0.0.0.0/0"}), "0.0.0.1", "255.255.255.254", "0.0.0.1", (1 << 32) - 3);
}

#[test]
fn never_the_network_or_broadcast_address() {
    let keys = json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.0", "rangeEnd": "10.0.0.255"});
    let (range, warnings) = read(&keys).unwrap();
    assert_eq!((range.first.to_string(), range.last.to_string()), ("10.0.0.1".into(), "10.0.0.254".into()));
    assert_eq!(
        warnings[1],
        "ipam.rangeEnd: 10.0.0.255 is not a host address of 10.0.0.0/24, so it is never assigned"
    );
    assert!(read(&json!({"subnet": "10.0.0.0/24", "slice": "10.0.0.0/28"})).unwrap().1.is_empty());
}

#[test]
fn refuses_contradictions() {
    let check = |keys: Value, msg: &str| assert_eq!(read(&keys).unwrap_err().msg, msg);
    check(json!({}), "ipam.subnet: missing: must be the network's subnet such as 172.20.56.0/24");
    check(
        json!({"subnet": "10.0.0.1/24"}),
        "ipam.subnet: 10.0.0.1/24 has host bits set: 10.0.0.0/24 would be right",
    );
    let with = |key: &str, value: &str| json!({"subnet": "10.0.0.0/24", key: value});
    check(
        with("slice", "10.0.0.17/28"),
        "ipam.slice: 10.0.0.17/28 has host bits set: 10.0.0.16/28 would be right",
    );
    check(with("slice", "10.0.1.16/28"), "ipam.slice: 10.0.1.16/28 is not within subnet 10.0.0.0/24");
    check(with("slice", "10.0.0.0/23"), "ipam.slice: 10.0.0.0/23 is not within subnet 10.0.0.0/24");
    check(with("slice", "2001:db8::/64"), "ipam.slice: 2001:db8::/64 is not within subnet 10.0.0.0/24");
    check(with("gateway", "10.0.1.1"), "ipam.gateway: 10.0.1.1 is not within subnet 10.0.0.0/24");
    check(with("gateway", "fe80::1"), "ipam.gateway: fe80::1 is not within subnet 10.0.0.0/24");
    check(with("gateway", "10.0.0.255"), "ipam.gateway: 10.0.0.255 is not a host address of 10.0.0.0/24");
    check(with("rangeStart", "10.0.1.1"), "ipam.rangeStart: 10.0.1.1 is not within subnet 10.0.0.0/24");
    check(with("rangeEnd", "9.0.0.1"), "ipam.rangeEnd: 9.0.0.1 is not within subnet 10.0.0.0/24");
    check(
        json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}),
        "ipam.rangeStart: 10.0.0.9 is after rangeEnd 10.0.0.8",
    );
    check(
        json!({"subnet": "10.0.0.0/24", "slice": "10.0.0.16/28", "rangeEnd": "10.0.0.20"}),
        "ipam.slice: 10.0.0.16/28 excludes rangeStart and rangeEnd: remove it or them",
    );
    let nothing = "has no address to assign besides network, broadcast and gateway";
    check(with("slice", "10.0.0.0/32"), &format!("ipam.slice: 10.0.0.0/32 {nothing}"));
    check(with("slice", "10.0.0.255/32"), &format!("ipam.slice: 10.0.0.255/32 {nothing}"));
    check(with("slice", "10.0.0.1/32"), &format!("ipam.slice: 10.0.0.1/32 {nothing}"));
    check(
        json!({"subnet": "10.0.0.1/32", "gateway": "10.0.0.1"}),
        &format!("ipam.subnet: 10.0.0.1/32 {nothing}"),
    );
}

#[test]
fn a_set_is_of_one_family_without_overlap() {
    let refuses = |keys: &[Value], part: &str| {
        let error = set(keys).unwrap_err();
        assert!(error.msg.contains(part), "{}", error.msg);
    };
    refuses(&[], "ipam.ranges[0]: an empty list");
    refuses(&[json!({"subnet": "10.0.0.0/24"}), json!({"subnet": "2001:db8::/64"})], "different families");
    refuses(
        &[json!({"subnet": "10.0.0.0/24"}), json!({"subnet": "10.0.0.0/25"})],
        "10.0.0.0/24 and 10.0.0.0/25 overlap",
    );
    refuses(&[json!({"subnet": "10.0.0.0/25"}), json!({"subnet": "10.0.0.0/24"})], "overlap");
    let halves =
        ["10.0.0.16/28", "10.0.0.32/28"].map(|slice| json!({"subnet": "10.0.0.0/24", "slice": slice}));
    let set = set(&halves).unwrap();
    assert_eq!(set.to_string(), "10.0.0.16/28, 10.0.0.32/28");
    assert_eq!(set.capacity(), 32);
}

#[test]
fn knows_what_it_offers() {
    let set = set(&[json!({"subnet": "10.0.0.0/29"})]).unwrap();
    let offers = |addr: &str| set.offers(addr.parse().unwrap());
    assert!(offers("10.0.0.2") && offers("10.0.0.6"));
    assert!(!offers("10.0.0.1") && !offers("10.0.0.7") && !offers("10.0.0.0") && !offers("2001:db8::1"));
    let range = &set.0[0];
    assert_eq!(range.nth(5), Some("10.0.0.6".parse().unwrap()));
    assert_eq!(range.nth(6), None);
    assert_eq!(range.nth(u128::MAX), None);
    assert_eq!(range.offset_of("10.0.0.6".parse().unwrap()), Some(5));
    assert_eq!(range.with_prefix("10.0.0.6".parse().unwrap()).to_string(), "10.0.0.6/29");
}

#[test]
fn prints_what_the_operator_wrote() {
    let check = |keys: Value, expected: &str| assert_eq!(range(&keys).to_string(), expected);
    check(json!({"subnet": "10.0.0.0/24"}), "10.0.0.0/24");
    check(json!({"subnet": "10.0.0.0/24", "slice": "10.0.0.16/28"}), "10.0.0.16/28");
    check(json!({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9"}), "10.0.0.9-10.0.0.254");
}

#[test]
fn exclusions_are_passed_in_one_step() {
    let set = set(&[
        json!({"subnet": "10.0.0.0/24", "exclude": ["10.0.0.64/26", "10.0.0.64/27", "10.0.0.2", "10.0.0.1", "10.0.0.255"]}),
    ])
    .unwrap();
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    assert_eq!(set.capacity(), 254 - 64 - 2);
    assert_eq!(set.refused_until(ip(70)), Some(ip(127)));
    assert_eq!(set.refused_until(ip(1)), Some(ip(1)));
    assert_eq!(set.refused_until(ip(3)), None);
    assert!(!set.offers(ip(2)) && !set.offers(ip(64)) && set.offers(ip(128)));
}
