//! Tests of [`Request`].

use std::ffi::OsString;

use serde_json::json;

use super::*;

fn env(verb: &str, args: &str) -> Environment {
    Environment::parse(|name| {
        let value = match name {
            "CNI_COMMAND" => verb,
            "CNI_CONTAINERID" => "c1",
            "CNI_NETNS" => "/run/netns/c1",
            "CNI_IFNAME" => "eth0",
            "CNI_PATH" => "/opt/cni/bin",
            "CNI_ARGS" => args,
            _ => return None,
        };
        Some(OsString::from(value))
    })
    .unwrap()
}

fn parse(verb: &str, stdin: &str) -> Result<Request, CniError> {
    Request::parse(env(verb, ""), stdin.as_bytes().to_vec())
}

/// An ADD with a valid configuration and these keys.
fn add(args: &str, keys: &Value) -> Request {
    let mut config = json!({"cniVersion": "1.1.0", "name": "vlan136"});
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Request::parse(env("ADD", args), config.to_string().into_bytes()).unwrap()
}

fn refuses(verb: &str, stdin: &str, code: u32, part: &str) {
    let error = parse(verb, stdin).unwrap_err();
    assert_eq!(error.code, code, "{stdin}: {}", error.msg);
    assert!(error.msg.contains(part), "{stdin}: {}", error.msg);
}

#[test]
fn refuses_what_is_no_configuration() {
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        refuses(verb, "", code::DECODING_FAILURE, "the network configuration is missing");
        refuses(verb, "[]", code::DECODING_FAILURE, "not a JSON object");
        refuses(verb, "{\"name\": }", code::DECODING_FAILURE, "line 1 column 10");
        refuses(verb, "{} x", code::DECODING_FAILURE, "trailing characters");
    }
    refuses("ADD", &"[".repeat(100_000), code::DECODING_FAILURE, "recursion limit");
}

#[test]
fn refuses_unknown_versions_and_verbs_before_their_time() {
    refuses(
        "ADD",
        r#"{"cniVersion": 1.1, "name": "n"}"#,
        code::INCOMPATIBLE_VERSION,
        "cniVersion: 1.1 is not a string",
    );
    refuses("DEL", r#"{"cniVersion": "9.9.9", "name": "n"}"#, code::INCOMPATIBLE_VERSION, "9.9.9");
    refuses("CHECK", r#"{"cniVersion": "0.3.1", "name": "n"}"#, code::INCOMPATIBLE_VERSION, "CHECK: 0.4.0");
    refuses("CHECK", r#"{"name": "n"}"#, code::INCOMPATIBLE_VERSION, "0.1.0 does not have CHECK");
    refuses("GC", r#"{"cniVersion": "1.0.0", "name": "n"}"#, code::INCOMPATIBLE_VERSION, "GC: 1.1.0");
    refuses("STATUS", r#"{"cniVersion": "1.0.0", "name": "n"}"#, code::INCOMPATIBLE_VERSION, "STATUS: 1.1.0");
    assert_eq!(parse("ADD", r#"{"name": "n"}"#).unwrap().version, Version::V0_1_0);
    assert!(parse("CHECK", r#"{"cniVersion": "0.4.0", "name": "n"}"#).is_ok());
}

#[test]
fn refuses_names_that_are_no_file_names() {
    refuses("DEL", "{}", code::INVALID_CONFIG, "name: missing");
    refuses("GC", r#"{"cniVersion": "1.1.0", "name": ""}"#, code::INVALID_CONFIG, "name: missing");
    for name in ["..", "../x", "a/b", ".a", "-a", "a b", "a\u{0}b", "é"] {
        refuses("ADD", &json!({ "name": name }).to_string(), code::INVALID_CONFIG, "is not a network name");
    }
    refuses("ADD", &json!({"name": "a".repeat(181)}).to_string(), code::INVALID_CONFIG, "181 bytes");
    refuses("ADD", r#"{"name": 5}"#, code::INVALID_CONFIG, "name: 5 is not a string");
    assert!(parse("ADD", &json!({"name": "a".repeat(180)}).to_string()).is_ok());
}

#[test]
fn del_and_gc_look_at_nothing_else() {
    let broken = json!({"cniVersion": "1.1.0", "name": "n", "ipam": 5, "prevResult": [], "logLevel": 7, "args": "x",
                        "runtimeConfig": false});
    assert!(parse("DEL", &broken.to_string()).is_ok());
    assert!(parse("GC", &broken.to_string()).is_ok());
}

#[test]
fn version_takes_anything() {
    for stdin in ["", "{}", "nonsense", r#"{"cniVersion": "1.0.0"}"#] {
        assert!(parse("VERSION", stdin).is_ok(), "{stdin}");
    }
    assert_eq!(Request::version_asked(br#"{"cniVersion": "7.0.0"}"#).as_deref(), Some("7.0.0"));
    assert_eq!(Request::version_asked(b"{}"), None);
    assert_eq!(Request::version_for_errors(br#"{"cniVersion": "0.4.0", "name": "/"}"#), Version::V0_4_0);
    assert_eq!(Request::version_for_errors(b"nonsense"), Version::V1_1_0);
}

#[test]
fn an_absent_list_of_attachments_is_not_an_empty_one() {
    assert_eq!(add("", &json!({})).valid_attachments(), Ok(None));
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(add("", &json!({key: null})).valid_attachments(), Ok(Some(vec![])), "as libcni writes it");
    }
    assert_eq!(add("", &json!({"cni.dev/valid-attachments": []})).valid_attachments(), Ok(Some(vec![])));
    let one = json!([{"containerID": "c1", "ifname": "eth0"}]);
    let expected = Ok(Some(vec![("c1".to_owned(), "eth0".to_owned())]));
    assert_eq!(add("", &json!({"cni.dev/valid-attachments": one})).valid_attachments(), expected);
    assert_eq!(add("", &json!({"cni.dev/attachments": one})).valid_attachments(), expected);
    let both = json!({"cni.dev/valid-attachments": null, "cni.dev/attachments": one});
    assert_eq!(add("", &both).valid_attachments(), expected, "what one of them names is valid");
    let error = add("", &json!({"cni.dev/valid-attachments": [{"containerID": "c1"}]})).valid_attachments();
    assert_eq!(error.unwrap_err().msg, "cni.dev/valid-attachments[0].ifname: missing: must be a string");
}

#[test]
fn the_mac_comes_from_the_first_of_three_places() {
    let check = |args: &str, keys: Value, expected: Option<&str>| {
        let mac = add(args, &keys).requested_mac().unwrap().map(|mac| mac.to_string());
        assert_eq!(mac.as_deref(), expected);
    };
    let (runtime, cni) = (json!({"mac": "02:00:00:00:00:01"}), json!({"cni": {"mac": "02:00:00:00:00:02"}}));
    let third = "MAC=02:00:00:00:00:03";
    check(third, json!({"runtimeConfig": runtime, "args": cni}), Some("02:00:00:00:00:01"));
    check(third, json!({ "args": cni }), Some("02:00:00:00:00:02"));
    check(third, json!({}), Some("02:00:00:00:00:03"));
    check("", json!({"runtimeConfig": {"mac": ""}}), None);
    let error = add("", &json!({"runtimeConfig": {"mac": "x"}})).requested_mac().unwrap_err();
    assert!(error.msg.starts_with("runtimeConfig.mac: \"x\" is not a MAC"), "{}", error.msg);
}

#[test]
fn addresses_come_from_all_three_places() {
    let keys =
        json!({"args": {"cni": {"ips": ["10.0.0.2"]}}, "runtimeConfig": {"ips": ["10.0.0.3/8", "10.0.0.1"]}});
    let ips = add("IP=10.0.0.1/24", &keys).requested_ips().unwrap();
    assert_eq!(ips, ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    let error = add("", &json!({"args": {"cni": {"ips": ["x"]}}})).requested_ips().unwrap_err();
    assert_eq!(error.msg, "args.cni.ips[0]: \"x\" is not an IP address");
}

#[test]
fn reads_log_settings() {
    assert_eq!(add("", &json!({})).log_settings(), Ok(LogSettings::default()));
    let settings = add("", &json!({"logFile": "/var/log/x", "logLevel": "Debug"})).log_settings().unwrap();
    assert_eq!(settings, LogSettings { file: Some("/var/log/x".into()), level: LogLevel::Debug });
    let error = |keys| add("", &keys).log_settings().unwrap_err().msg;
    assert_eq!(error(json!({"logFile": "x"})), "logFile: \"x\" is not an absolute path");
    assert!(error(json!({"logLevel": "loud"})).starts_with("logLevel: \"loud\" is not one of error"));
}

#[test]
fn reads_prev_result_in_the_configs_version() {
    let prev = json!({"prevResult": {"ips": [{"address": "10.0.0.2/24"}]}});
    assert_eq!(add("", &prev).prev_result().unwrap().unwrap().ips.len(), 1);
    assert_eq!(add("", &json!({})).prev_result(), Ok(None));
    let error = add("", &json!({"prevResult": {"ips": [{}]}})).prev_result().unwrap_err();
    assert_eq!(error.code, code::INVALID_CONFIG);
    assert!(error.msg.starts_with("prevResult.ips[0].address: missing"), "{}", error.msg);
}

#[test]
fn knows_the_keys_of_every_plugin() {
    assert!(is_common_key("cni.dev/anything") && is_common_key("CNIVersion") && is_common_key("ipam"));
    assert!(!is_common_key("bridge"));
}
