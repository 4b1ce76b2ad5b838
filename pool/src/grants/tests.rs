use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(uptime: u32, clock: u32) -> Moment {
    Moment { boot: "b".into(), uptime: uptime * SECOND, clock: clock * SECOND }
}

fn confirmation(give_for: Option<u32>) -> Confirmation {
    let give_for = give_for.map(|seconds| seconds * SECOND);
    let Moment { boot, uptime, clock } = at(100, 1000);
    Confirmation { epoch: 3, boot, sent_at: uptime, sent_at_clock: clock, give_for }
}

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn grants() -> Grants {
    let (pool, node, network) = ["p", "a", "n"].map(|name| Name::new(name).unwrap()).into();
    Grants {
        pool,
        pool_id: "00112233445566778899aabbccddeeff".into(),
        node,
        network,
        epoch: 3,
        restored: 0,
        generation: 1,
        home: [ip(1)].into_iter().collect(),
        leased: [ip(2), ip(3)].into_iter().collect(),
        unproven: [ip(3)].into_iter().collect(),
        blocks: [BlockKey::of(ip(1))].into(),
    }
}

#[test]
fn a_confirmation_ends_by_the_clock_that_says_so_first() {
    let limited = confirmation(Some(10));
    assert!(limited.holds(3, &at(109, 1009)) && limited.holds(3, &at(109, 500)));
    assert!(!limited.holds(3, &at(110, 1000)) && !limited.holds(3, &at(101, 1010)));
    assert!(!limited.holds(3, &at(99, 1000)), "a time before the question is of no boot that is known");
    let endless = confirmation(None);
    assert!(endless.holds(3, &at(1_000_000, 2_000_000)));
    assert!(!endless.holds(2, &at(100, 1000)) && !endless.holds(4, &at(100, 1000)));
    assert!(!endless.holds(3, &Moment { boot: "c".into(), ..at(100, 1000) }));
}

#[test]
fn home_is_given_always_and_leased_only_if_confirmed() {
    let grants = grants();
    let (confirmed, now) = (confirmation(Some(10)), at(105, 1005));
    let verdicts = |confirmed: Option<&Confirmation>| {
        [1, 2, 3, 4].map(|last| grants.may_give(ip(last), confirmed, &now))
    };
    use Verdict::*;
    assert_eq!(verdicts(Some(&confirmed)), [Give, Give, GiveIfSilent, NotGranted]);
    assert_eq!(verdicts(None), [Give, Unconfirmed, Unconfirmed, NotGranted]);
}

const GRANTS: &str = concat!(
    r#"{"blocks":["10.0.0.0"],"check":"4cb1ee2a","epoch":3,"generation":1,"#,
    r#""home":["10.0.0.1"],"id":"00112233445566778899aabbccddeeff","#,
    r#""leased":["10.0.0.2-10.0.0.3"],"network":"n","node":"a","pool":"p","#,
    r#""unproven":["10.0.0.3"],"v":1}"#,
);

#[test]
fn grants_and_confirmations_are_read_as_they_are_written() {
    let written = grants().to_json().to_string();
    assert_eq!(written, GRANTS);
    assert_eq!(Grants::parse(written.as_bytes()).unwrap(), grants());
    let restored = Grants { restored: 2, ..grants() };
    assert_eq!(Grants::parse(restored.to_json().to_string().as_bytes()).unwrap(), restored);
    let boot = "6a1f0c6e-54f1-4b5c-9f0e-2f6f6d1b8c11";
    for give_for in [None, Some(10)] {
        let confirmation = Confirmation { boot: boot.into(), ..confirmation(give_for) };
        let written = confirmation.to_json().to_string();
        assert_eq!(Confirmation::parse(written.as_bytes()).unwrap(), confirmation);
    }
    let exact = Duration::from_nanos(1_999_999);
    let confirmation = Confirmation { boot: boot.into(), sent_at: exact, ..confirmation(None) };
    let read = Confirmation::parse(confirmation.to_json().to_string().as_bytes()).unwrap();
    assert_eq!(read.sent_at, Duration::from_millis(1));
}

/// Changes a file, and gives it the right checksum.
fn error(from: &str, to: &str) -> String {
    assert!(GRANTS.contains(from));
    let mut value: Value = serde_json::from_str(&GRANTS.replace(from, to)).unwrap();
    value[CHECK] = check(value.as_object().unwrap()).into();
    Grants::parse(value.to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_grants_is_named() {
    assert_eq!(
        error("-10.0.0.3", "-10.0.0.1"),
        r#"leased: "10.0.0.2-10.0.0.1" is not an address, or two of one family as FIRST-LAST"#
    );
    assert_eq!(error("10.0.0.2-", "10.0.0.1-"), "leased: 10.0.0.1 is not an address outside home");
    assert_eq!(error(r#"["10.0.0.3"]"#, r#"["10.0.0.4"]"#), "unproven: 10.0.0.4 is not an address of leased");
    assert_eq!(
        error(r#""10.0.0.0""#, r#""10.0.0.1""#),
        r#"blocks: "10.0.0.1" is not the first address of a block of 64"#
    );
    assert!(error(r#""pool":"p","#, "").starts_with("pool is missing: must be a name of"));
    assert_eq!(error(r#""v":1"#, r#""v":2"#), "v: 2 is not 1, the version that this release reads");
}

#[test]
fn an_edited_file_is_noticed_and_unknown_keys_are_not() {
    let written = grants().to_json().to_string();
    let edited = written.replace("10.0.0.2-", "10.0.0.3-");
    assert_ne!(edited, written);
    let refused = Grants::parse(edited.replace("-10.0.0.3", "").as_bytes()).unwrap_err();
    assert!(matches!(refused, Unreadable::Check { .. }), "{refused}");
    let mut value: Value = serde_json::from_str(&written).unwrap();
    value["later"] = json!({"key": 1});
    value[CHECK] = check(value.as_object().unwrap()).into();
    assert_eq!(Grants::parse(value.to_string().as_bytes()).unwrap(), grants());
    value["later"] = json!({"key": 2});
    assert!(Grants::parse(value.to_string().as_bytes()).is_err());
}
