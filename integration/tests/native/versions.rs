//! Every version of the specification: its verbs, and the exact shape of its results.

use integration::{Pod, Site, Snapshot, product};
use serde_json::{Value, json};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const PLUGINS: [&str; 2] = ["vlan-bridge", "vlan-bridge-ipam"];

/// The site's network with an address and a route of each family, in a version.
fn dual_stack(site: &Site, version: &str) -> Value {
    let mut list = site.list();
    list["cniVersion"] = json!(version);
    let ipam = &mut list["plugins"][0]["ipam"];
    ipam["ranges"] = json!([[{"subnet": "2001:db8:56::/64"}]]);
    ipam["routes"] = json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "::/0", "gw": "2001:db8:56::9"},
        {"dst": "10.9.0.0/16", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0},
    ]);
    ipam["resolvConf"] = json!(site.node.folder().path().join("resolv.conf"));
    std::fs::write(site.node.folder().path().join("resolv.conf"), "nameserver 172.20.56.53\nsearch a b\n")
        .unwrap();
    list
}

/// The names of an object's keys, sorted by serde_json.
fn keys(value: &Value) -> String {
    value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn keys_of_all(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(keys).collect()
}

#[test]
fn a_result_has_the_keys_of_its_version_and_no_others() {
    let route = "advmss dst mtu priority scope table";
    for version in VERSIONS {
        let site = Site::new();
        let pod = Pod::new();
        let plugin = site.node.plugin(&dual_stack(&site, version));
        let result = plugin.add(&pod.eth0()).expect_ok().json();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(
            result["dns"],
            json!({"nameservers": ["172.20.56.53"], "search": ["a", "b"]}),
            "{version}"
        );
        if version < "0.3.0" {
            assert_eq!(keys(&result), "cniVersion dns ip4 ip6");
            let (v4, v6) = (&result["ip4"], &result["ip6"]);
            assert_eq!((keys(v4), keys(v6)), ("gateway ip routes".into(), "gateway ip routes".into()));
            assert_eq!(v4["ip"], "172.20.56.16/24");
            assert_eq!(v4["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16"}]));
            assert_eq!(v6["routes"], json!([{"dst": "::/0", "gw": "2001:db8:56::9"}]));
        } else {
            assert_eq!(keys(&result), "cniVersion dns interfaces ips routes", "{version}");
            let newest = version == "1.1.0";
            let (host, pod_side) = if newest {
                ("mac mtu name", "mac mtu name sandbox")
            } else {
                ("mac name", "mac name sandbox")
            };
            assert_eq!(keys_of_all(&result["interfaces"]), [host, host, pod_side], "{version}");
            let ip = if version < "1.0.0" {
                "address gateway interface version"
            } else {
                "address gateway interface"
            };
            assert_eq!(keys_of_all(&result["ips"]), [ip, ip], "{version}");
            if version < "1.0.0" {
                assert_eq!(
                    (&result["ips"][0]["version"], &result["ips"][1]["version"]),
                    (&json!("4"), &json!("6"))
                );
            }
            let last = if newest { route } else { "dst" };
            assert_eq!(keys_of_all(&result["routes"]), ["dst", "dst gw", last], "{version}");
        }
        plugin.del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn version_names_all_of_them() {
    let site = Site::new();
    for name in PLUGINS {
        let mut list = site.list();
        list["plugins"][0]["type"] = json!(name);
        let answer = site.node.plugin(&list).version().expect_ok().json();
        assert_eq!(answer, json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}), "{name}");
        // Runtimes send VERSION with only a version on stdin, or with empty stdin, and without other
        // variables.
        for stdin in ["", "{}", r#"{"cniVersion": "0.4.0"}"#] {
            let call = site.node.plugin(&list).call_without_attachment("VERSION").without_env("CNI_PATH");
            let answer = call.stdin(stdin).run().expect_ok().json();
            assert_eq!(answer["supportedVersions"], json!(VERSIONS), "{name} {stdin}");
        }
    }
}

#[test]
fn a_verb_that_a_version_lacks_is_refused() {
    let site = Site::new();
    let pod = Pod::new();
    let before = (Snapshot::of(&site.node), Snapshot::of(&pod));
    for name in PLUGINS {
        for version in VERSIONS {
            for (verb, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
                if version >= since {
                    continue;
                }
                let mut list = site.list();
                (list["cniVersion"], list["plugins"][0]["type"]) = (json!(version), json!(name));
                let outcome = site.node.plugin(&list).call(verb, &pod.eth0()).run();
                assert_eq!(outcome.error_code(), 1, "{outcome}");
                assert_eq!(outcome.json()["cniVersion"], version, "errors speak the caller's version");
                let text = outcome.error_text();
                assert!([version, verb, since].iter().all(|part| text.contains(part)), "{text}");
            }
        }
    }
    before.0.assert_unchanged(&site.node);
    before.1.assert_unchanged(&pod);
}

#[test]
fn an_unknown_version_is_refused_by_every_verb() {
    let site = Site::new();
    let pod = Pod::new();
    let before = (Snapshot::of(&site.node), Snapshot::of(&pod));
    for name in PLUGINS {
        let mut list = site.list();
        list["plugins"][0]["type"] = json!(name);
        for version in [json!("2.0.0"), json!("1.1"), json!("v1.1.0"), json!("1.1.0 "), json!(1.1)] {
            list["cniVersion"] = version.clone();
            for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
                let outcome = site.node.plugin(&list).call(verb, &pod.eth0()).run();
                assert_eq!(outcome.error_code(), 1, "{name} {verb} {version}: {outcome}");
                let text = outcome.error_text();
                assert!(text.contains("cniVersion") && text.contains(&version.to_string()), "{text}");
            }
        }
    }
    before.0.assert_unchanged(&site.node);
    before.1.assert_unchanged(&pod);
}

#[test]
fn no_version_means_0_1_0() {
    let site = Site::new();
    for version in [json!(null), json!("")] {
        let pod = Pod::new();
        let plugin = site.node.plugin(&site.list()).with("cniVersion", version);
        let result = plugin.add(&pod.eth0()).expect_ok().json();
        assert_eq!(keys(&result), "cniVersion dns ip4");
        assert_eq!(result["cniVersion"], "0.1.0");
        plugin.del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn what_an_old_version_cannot_say_is_refused_before_anything_is_touched() {
    let site = Site::new();
    let pod = Pod::new();
    let before = (Snapshot::of(&site.node), Snapshot::of(&pod));
    let mut two_addresses = site.conf()["ipam"].clone();
    two_addresses["dataDir"] = json!(site.node.data_dir());
    two_addresses["ranges"] = json!([[{"subnet": "10.7.0.0/24"}]]);
    for version in ["0.1.0", "0.2.0"] {
        for ipam in [json!(null), json!({}), two_addresses.clone()] {
            let plugin = site.node.plugin(&site.list()).with("cniVersion", json!(version)).with("ipam", ipam);
            let outcome = plugin.add(&pod.eth0());
            assert_eq!(outcome.error_code(), 2, "{outcome}");
            assert!(outcome.error_text().contains(version), "{outcome}");
            before.0.assert_unchanged(&site.node);
            before.1.assert_unchanged(&pod);
            assert!(site.node.leases(Site::NETWORK).is_empty());
        }
    }
}

#[test]
fn a_family_that_is_not_there_is_not_mentioned() {
    let site = Site::new();
    let mut list = site.list();
    list["cniVersion"] = json!("0.2.0");
    list["plugins"][0]["ipam"] = json!({
        "type": "vlan-bridge-ipam", "subnet": "2001:db8:56::/64", "dataDir": site.node.data_dir(),
    });
    let pod = Pod::new();
    let result = site.node.plugin(&list).add(&pod.eth0()).expect_ok().json();
    let expected = json!({"ip": "2001:db8:56::2/64", "gateway": "2001:db8:56::1"});
    assert_eq!(result, json!({"cniVersion": "0.2.0", "ip6": expected, "dns": {}}));
}

#[test]
fn check_takes_the_result_of_its_version() {
    let site = Site::new();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::new();
        let plugin = site.node.plugin(&dual_stack(&site, version));
        let result = plugin.add(&pod.eth0()).expect_ok().json();
        let outcome = plugin.check(&pod.eth0(), &result).expect_ok();
        assert_eq!(outcome.stdout, "", "a CHECK that passes says nothing");
        pod.ip("addr flush dev eth0");
        let outcome = plugin.check(&pod.eth0(), &result);
        assert_eq!(outcome.error_code(), 101, "{version}: {outcome}");
        plugin.del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn check_without_a_previous_result_is_refused() {
    let site = Site::new();
    let pod = Pod::new();
    let outcome = site.node.plugin(&site.list()).call("CHECK", &pod.eth0()).run();
    assert_eq!(outcome.error_code(), 7, "{outcome}");
    assert!(outcome.error_text().contains("prevResult"), "{outcome}");
}

#[test]
fn the_ipam_plugin_alone_answers_in_the_callers_version() {
    let site = Site::new();
    let pod = Pod::new();
    for version in VERSIONS {
        let mut list = dual_stack(&site, version);
        list["plugins"][0]["type"] = json!("vlan-bridge-ipam");
        assert!(product().join("vlan-bridge-ipam").exists());
        let plugin = site.node.plugin(&list);
        let result = plugin.add(&pod.eth0()).expect_ok().json();
        assert_eq!(result["cniVersion"], version);
        let expected = if version < "0.3.0" { "cniVersion dns ip4 ip6" } else { "cniVersion dns ips routes" };
        assert_eq!(keys(&result), expected, "{version}: an IPAM plugin has no interfaces");
        assert_eq!(plugin.del(&pod.eth0()).expect_ok().stdout, "");
    }
}
