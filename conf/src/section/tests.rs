//! What the cursor reads, and how it reports the other keys.

use serde_json::json;

use super::*;
use crate::cni::error::code;

fn with<T>(value: &Value, ask: impl FnOnce(&Section<'_>) -> T) -> T {
    ask(&Section::new(value.as_object().unwrap(), "uplink"))
}

#[test]
fn says_key_value_and_what_would_be_right() {
    type Ask = fn(&Section<'_>) -> Option<CniError>;
    let check = |value: Value, ask: Ask, expected: &str| {
        let config = json!({ "key": value });
        let error = with(&config, ask).unwrap_or_else(|| panic!("{config} was taken"));
        assert_eq!((error.code, error.msg.as_str()), (code::INVALID_CONFIG, expected));
    };
    check(json!("yes"), |s| s.bool("key").err(), "uplink.key: \"yes\" is not true or false");
    check(
        json!(4095),
        |s| s.number("key", "a VLAN id", 1..=4094).err(),
        "uplink.key: 4095 is not a VLAN id: 1 to 4094",
    );
    check(
        json!(67),
        |s| s.uint_zero_as_none("key", "an MTU", 68..=9000, "the default").err(),
        "uplink.key: 67 is not an MTU: 68 to 9000, or 0 for the default",
    );
    check(json!(-1), |s| s.uint("key", 0..=9).err(), "uplink.key: -1 is not a whole number from 0 to 9");
    check(json!(1.5), |s| s.uint("key", 0..=9).err(), "uplink.key: 1.5 is not a whole number from 0 to 9");
    check(json!(7), |s| s.str("key").err(), "uplink.key: 7 is not a string");
    check(json!("10.0.0.1/24"), |s| s.ip("key").err(), "uplink.key: \"10.0.0.1/24\" is not an IP address");
    check(
        json!("10.0.0.1"),
        |s| s.cidr("key").err(),
        "uplink.key: \"10.0.0.1\" is not an address with a prefix length such as 172.20.56.0/24",
    );
    check(json!([]), |s| s.section("key").err(), "uplink.key: [] is not an object");
    check(json!([{}, 1]), |s| s.sections("key").err(), "uplink.key[1]: 1 is not an object");
    check(json!([[{}], [2]]), |s| s.section_lists("key").err(), "uplink.key[1][0]: 2 is not an object");
    check(json!(["a", null]), |s| s.strings("key").err(), "uplink.key[1]: null is not a string");
    check(
        json!({}),
        |s| s.require("other", s.str("other").ok()?, "a name").err(),
        "uplink.other: missing: must be a name",
    );
}

#[test]
fn cuts_long_values() {
    let long = json!({"key": "ä".repeat(500)});
    let error = with(&long, |section| section.bool("key").unwrap_err());
    assert!(error.msg.len() < 250, "{}", error.msg.len());
}

#[test]
fn finds_keys_as_go_does() {
    let config = json!({"Bridge": "a", "VLAN": 7, "vlan": 8, "none": null});
    with(&config, |section| {
        assert_eq!(section.str("bridge"), Ok(Some("a")));
        assert_eq!(section.uint("vlan", 0..=9), Ok(Some(8)));
        assert_eq!(section.str("none"), Ok(None));
        assert_eq!(paths(section), ["uplink.VLAN"]);
    });
}

#[test]
fn remembers_what_was_asked_in_nested_sections() {
    let config = json!({"list": [{"a": 1, "b": 2}], "x": 1});
    with(&config, |section| {
        let inner = &section.sections("list").unwrap()[0];
        assert_eq!(inner.uint("a", 0..=1), Ok(Some(1)));
        assert_eq!(paths(inner), ["uplink.list[0].b"]);
        assert_eq!(paths(section), ["uplink.x"]);
    });
}

fn paths(section: &Section<'_>) -> Vec<String> {
    section.unknown().into_iter().map(|key| key.path).collect()
}

#[test]
fn a_mistyped_key_is_recognised() {
    let config = json!({"slize": 1, "Mastre": 1, "id": 1, "other": 1});
    with(&config, |section| {
        for key in ["slice", "master", "mtu", "name", "x"] {
            section.value(key);
        }
        let told: Vec<String> = section.unknown().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "uplink.Mastre: unknown key, ignored; did you mean master?",
                "uplink.id: unknown key, ignored",
                "uplink.other: unknown key, ignored",
                "uplink.slize: unknown key, ignored; did you mean slice?",
            ]
        );
    });
}

#[test]
fn reads_addresses() {
    assert_eq!(parse_ip("::ffff:10.0.0.1"), Some("10.0.0.1".parse().unwrap()));
    assert_eq!(parse_ip("10.0.0.1/24"), Some("10.0.0.1".parse().unwrap()));
    assert_eq!(parse_ip("10.0.0.01"), None);
    assert_eq!(parse_cidr("::ffff:10.0.0.0/120"), Some("10.0.0.0/24".parse().unwrap()));
    assert_eq!(parse_cidr("::ffff:10.0.0.0/64"), None);
    assert_eq!(parse_cidr("10.0.0.7/24").unwrap().to_string(), "10.0.0.7/24");
}
