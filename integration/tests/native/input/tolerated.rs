//! Input that is odd but accepted: unknown keys and their warnings, other spellings, values without effect.

use integration::{Outcome, Pod, Site, merge};
use serde_json::{Value, json};
use std::fs;

/// ADD with a patched configuration, and DEL after it.
#[track_caller]
fn accepted(site: &Site, patch: &Value) -> Outcome {
    let pod = Pod::new();
    let mut plugin = site.node.plugin(&site.list());
    merge(&mut plugin.conf, patch);
    let outcome = plugin.add(&pod.eth0()).expect_ok();
    assert_eq!(outcome.json()["cniVersion"], "1.1.0");
    plugin.check(&pod.eth0(), &outcome.json()).expect_ok();
    let deleted = plugin.del(&pod.eth0()).expect_ok();
    assert_eq!(deleted.stdout, "");
    outcome
}

#[test]
fn an_unknown_key_is_a_warning_that_names_it() {
    let site = Site::new();
    for (patch, key) in [
        (json!({"futureKey": {"a": 1}}), "futureKey"),
        (json!({"uplink": {"futureKey": 1}}), "uplink.futureKey"),
        (json!({"dns": {"futureKey": []}}), "dns.futureKey"),
        (json!({"ipam": {"futureKey": 1}}), "ipam.futureKey"),
        (json!({"ipam": {"exclud": []}}), "ipam.exclud"),
        (json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "futureKey": 1}]}}), "ipam.routes[0].futureKey"),
        (
            json!({"ipam": {"ranges": [[{"subnet": "2001:db8::/64", "futureKey": 1}]]}}),
            "ipam.ranges[0][0].futureKey",
        ),
    ] {
        let outcome = accepted(&site, &patch);
        let warning = format!("{key}: unknown key");
        assert_eq!(outcome.stderr.matches(&warning).count(), 1, "{key} is not named once\n{outcome}");
        assert!(outcome.stderr.contains("WARN"), "{outcome}");
    }
}

#[test]
fn keys_of_the_protocol_are_no_unknown_keys() {
    let site = Site::new();
    let outcome = accepted(
        &site,
        &json!({
            "capabilities": {"portMappings": true}, "args": {"labels": {"a": "b"}, "cni": {}},
            "runtimeConfig": {"portMappings": []}, "cni.dev/future": 1, "dns": {}, "disableCheck": false,
            "ipMasq": false, "ipMasqBackend": "iptables", "isGateway": false, "vlan": 0, "mtu": 0,
        }),
    );
    assert_eq!(outcome.stderr, "", "nothing to warn of");
}

#[test]
fn null_is_absent_and_keys_are_found_as_go_finds_them() {
    let site = Site::new();
    let pod = Pod::new();
    let mut plugin = site.node.plugin(&site.list());
    for key in
        ["mtu", "vlan", "vlanTrunk", "dns", "isGateway", "logFile", "runtimeConfig", "args", "prevResult"]
    {
        plugin.conf[key] = json!(null);
    }
    let conf = plugin.conf.as_object_mut().unwrap();
    let bridge = conf.remove("bridge").unwrap();
    conf.insert("Bridge".into(), bridge);
    let outcome = plugin.add(&pod.eth0()).expect_ok();
    assert_eq!(outcome.stderr, "");
    assert!(site.node.has_link("br136"));
}

#[test]
fn the_log_goes_to_its_file_and_nowhere_else() {
    let site = Site::new();
    let file = site.node.folder().path().join("cni.log");
    let outcome = accepted(&site, &json!({"logFile": file, "futureKey": 1, "ipam": {"otherKey": 1}}));
    assert_eq!(outcome.stderr, "");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("futureKey") && text.contains("ipam.otherKey"), "{text}");
    assert!(text.lines().all(|line| line.contains("WARN")), "the default is warn: {text}");
    let plugin = site.node.plugin(&site.list()).with("logFile", json!(file)).with("mtu", json!("big"));
    let failed = plugin.add(&Pod::new().eth0());
    assert_eq!((failed.error_code(), failed.stderr.as_str()), (7, ""));
    let more = fs::read_to_string(&file).unwrap();
    assert!(more.starts_with(&text) && more.contains("ERROR") && more.contains("mtu"), "{more}");
}

#[test]
fn a_level_says_how_much_is_logged() {
    let mut lengths = Vec::new();
    for level in ["error", "warn", "info", "trace"] {
        let site = Site::new();
        let file = site.node.folder().path().join("cni.log");
        let outcome = accepted(&site, &json!({"logFile": file, "logLevel": level, "futureKey": 1}));
        assert_eq!(outcome.stderr, "");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.contains("futureKey"), level != "error", "{level}: {text}");
        lengths.push(text.lines().count());
    }
    assert!(lengths[0] == 0 && lengths.is_sorted() && lengths[2] > lengths[1], "{lengths:?}");
}

#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_fail() {
    let site = Site::new();
    for file in ["/no/such/folder/cni.log", "/proc/cni.log", "/"] {
        let outcome = accepted(&site, &json!({"logFile": file, "futureKey": 1}));
        assert!(outcome.stderr.contains(file) && outcome.stderr.contains("futureKey"), "{outcome}");
    }
}

#[test]
fn a_line_of_the_log_cannot_be_forged() {
    let site = Site::new();
    let outcome = accepted(&site, &json!({"future\nERROR forged": 1}));
    assert!(outcome.stderr.lines().all(|line| !line.starts_with("ERROR")), "{outcome}");
}

#[test]
fn del_works_with_a_configuration_that_add_would_refuse() {
    let site = Site::new();
    for patch in [
        json!({"bridge": "a/b"}),
        json!({"uplink": {"master": null}}),
        json!({"uplink": "nic0"}),
        json!({"uplink": {"master": "gone0", "vlan": 9999}}),
        json!({"mtu": "big", "vlan": -1, "vlanTrunk": 7, "hairpinMode": 1, "dns": 7, "ipMasq": true}),
        json!({"logLevel": "loud", "logFile": 7, "args": 7, "runtimeConfig": 7, "prevResult": 7}),
        json!({"ipam": {"subnet": "nonsense", "slice": 7, "gateway": {}, "routes": 1, "ranges": "x"}}),
        json!({"ipam": {"subnet": "10.0.0.0/8", "slice": null, "gateway": null}}),
    ] {
        let pod = Pod::new();
        let mut plugin = site.node.plugin(&site.list());
        plugin.add(&pod.eth0()).expect_ok();
        merge(&mut plugin.conf, &patch);
        assert_eq!(plugin.del(&pod.eth0()).expect_ok().stdout, "", "{patch}");
        assert!(!pod.has_link("eth0"), "{patch}");
        assert!(site.node.leases(Site::NETWORK).is_empty(), "{patch}");
    }
}
