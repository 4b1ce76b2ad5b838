//! Every environment variable: missing, empty, malformed, contradictory.

use crate::input::Untouched;
use integration::{Scratch, Site, run};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

const VARIABLES: [&str; 4] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
const PLUGINS: [&str; 2] = ["vlan-bridge", "vlan-bridge-ipam"];

#[track_caller]
fn none(complaint: Option<String>) {
    assert!(complaint.is_none(), "{}", complaint.unwrap_or_default());
}

#[test]
fn all_that_is_missing_is_in_one_message() {
    let untouched = Untouched::new();
    for plugin in PLUGINS {
        for (verb, needed) in [
            ("ADD", &VARIABLES[..]),
            ("CHECK", &VARIABLES[..]),
            ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
            ("GC", &["CNI_PATH"]),
            ("STATUS", &["CNI_PATH"]),
        ] {
            let good = untouched.call(plugin, verb);
            let absent = VARIABLES.into_iter().fold(good.clone(), |call, name| call.without_env(name));
            none(untouched.complaint(&format!("{plugin} {verb} without all"), &absent, 4, needed));
            for &name in needed {
                let empty = good.clone().env(name, "");
                none(untouched.complaint(&format!("{plugin} {verb} {name}="), &empty, 4, &[name]));
                let absent = good.clone().without_env(name);
                none(untouched.complaint(&format!("{plugin} {verb} without {name}"), &absent, 4, &[name]));
            }
        }
    }
}

#[test]
fn a_verb_that_is_none() {
    let untouched = Untouched::new();
    for plugin in PLUGINS {
        let good = untouched.call(plugin, "ADD");
        none(untouched.complaint("no verb", &good.clone().without_env("CNI_COMMAND"), 4, &["CNI_COMMAND"]));
        for verb in ["add", "ADD ", "UPDATE", "../ADD"] {
            let call = good.clone().env("CNI_COMMAND", verb);
            none(untouched.complaint(verb, &call, 4, &["CNI_COMMAND", verb]));
        }
    }
}

#[test]
fn values_that_cannot_be() {
    let untouched = Untouched::new();
    let long_id = "a".repeat(201);
    let rows: [(&str, &str, &[&str]); 27] = [
        ("CNI_CONTAINERID", "../../etc", &["../../etc"]),
        ("CNI_CONTAINERID", "a/b", &["a/b"]),
        ("CNI_CONTAINERID", "..", &["\"..\""]),
        ("CNI_CONTAINERID", "a b", &["a b"]),
        ("CNI_CONTAINERID", "a\nb", &["a\\nb"]),
        ("CNI_CONTAINERID", "-a", &["-a"]),
        ("CNI_CONTAINERID", "ä", &["ä"]),
        ("CNI_CONTAINERID", &long_id, &["201"]),
        ("CNI_IFNAME", "a/b", &["a/b"]),
        ("CNI_IFNAME", "..", &["\"..\""]),
        ("CNI_IFNAME", ".", &["\".\""]),
        ("CNI_IFNAME", "a b", &["a b"]),
        ("CNI_IFNAME", "a:b", &["a:b"]),
        ("CNI_IFNAME", "sixteen-bytes-xx", &["sixteen-bytes-xx", "15"]),
        ("CNI_ARGS", "nonsense", &["nonsense"]),
        ("CNI_ARGS", "FOO=bar;BAR=foo", &["FOO", "BAR", "IgnoreUnknown"]),
        ("CNI_ARGS", "ip=172.20.56.20", &["ip"]),
        ("CNI_ARGS", "IP=172.20.56.300", &["IP", "172.20.56.300"]),
        ("CNI_ARGS", "IP=172.20.56.20/33", &["IP", "172.20.56.20/33"]),
        ("CNI_ARGS", "IgnoreUnknown=perhaps", &["IgnoreUnknown", "perhaps"]),
        ("CNI_ARGS", "MAC=nonsense", &["MAC", "nonsense"]),
        ("CNI_ARGS", "MAC=02:00:00:00:00", &["MAC", "02:00:00:00:00"]),
        ("CNI_ARGS", "MAC=01:00:5e:00:00:01", &["MAC", "01:00:5e:00:00:01"]),
        ("CNI_ARGS", "MAC=00:00:00:00:00:00", &["MAC", "00:00:00:00:00:00"]),
        ("CNI_NETNS", "/no/such/namespace", &["/no/such/namespace"]),
        ("CNI_NETNS", "/etc/passwd", &["/etc/passwd"]),
        ("CNI_NETNS", "/proc/self/ns/mnt", &["/proc/self/ns/mnt"]),
    ];
    for plugin in PLUGINS {
        for (name, value, parts) in rows {
            // An IPAM plugin must not open the namespace.
            if name == "CNI_NETNS" && plugin != "vlan-bridge" {
                continue;
            }
            let what = format!("{plugin} {name}={value}");
            let call = untouched.call(plugin, "ADD").env(name, value);
            none(untouched.complaint(&what, &call, 4, &[&[name], parts].concat()));
        }
    }
}

#[test]
fn bytes_that_are_no_text() {
    let untouched = Untouched::new();
    let bytes = || OsString::from_vec(b"a\xffb".to_vec());
    for plugin in PLUGINS {
        for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS", "CNI_NETNS"] {
            let call = untouched.call(plugin, "ADD").env(name, bytes());
            none(untouched.complaint(&format!("{plugin} {name}"), &call, 4, &[name]));
        }
    }
}

#[test]
fn a_path_without_the_ipam_plugin() {
    let untouched = Untouched::new();
    for path in ["/no/such/folder", "relative", ":", "/etc/passwd"] {
        let call = untouched.call("vlan-bridge", "ADD").env("CNI_PATH", path);
        let parts = ["CNI_PATH", "vlan-bridge-ipam", path];
        none(untouched.complaint(&format!("CNI_PATH={path}"), &call, 103, &parts));
    }
}

#[test]
fn the_nodes_own_namespace() {
    let untouched = Untouched::new();
    let own = untouched.site.node.path();
    for verb in ["ADD", "CHECK", "DEL"] {
        for value in ["", "0", "no"] {
            let mut conf = untouched.conf("vlan-bridge");
            conf["prevResult"] = serde_json::json!({"cniVersion": "1.1.0"});
            let call = untouched.call("vlan-bridge", verb).stdin(conf.to_string());
            let call = call.env("CNI_NETNS", &own).env("CNI_NETNS_OVERRIDE", value);
            none(untouched.complaint(
                &format!("{verb} {value:?}"),
                &call,
                8,
                &["CNI_NETNS", &own.to_string_lossy()],
            ));
        }
    }
}

#[test]
fn the_nodes_own_namespace_can_be_insisted_on() {
    let site = Site::new();
    let mut list = site.list();
    list["plugins"][0]["ipam"]["routes"] = serde_json::json!([]);
    let plugin = site.node.plugin(&list);
    let mut own = integration::Pod::new().eth0();
    own.netns = Some(site.node.path());
    for flag in ["1", "true"] {
        let call = |verb: &str| plugin.call(verb, &own).env("CNI_NETNS_OVERRIDE", flag);
        call("ADD").run().expect_ok();
        assert!(site.node.has_link("eth0"));
        call("DEL").run().expect_ok();
        assert!(!site.node.has_link("eth0"));
    }
}

#[test]
fn del_does_not_care_for_what_it_has_no_use_for() {
    let untouched = Untouched::new();
    for (name, value) in [
        ("CNI_ARGS", "nonsense"),
        ("CNI_NETNS", "/no/such/namespace"),
        ("CNI_NETNS", ""),
        ("CNI_NETNS", "/etc/passwd"),
        ("CNI_NETNS", "/proc/self/ns/mnt"),
        ("CNI_NETNS", &format!("/{}", "n".repeat(256))),
        ("CNI_NETNS", &"/n".repeat(2048)),
    ] {
        let outcome = untouched.call("vlan-bridge", "DEL").env(name, value).run();
        assert_eq!(outcome.expect_ok().stdout, "", "{name}={value}");
    }
    for name in ["CNI_ARGS", "CNI_NETNS", "CNI_NETNS_OVERRIDE"] {
        let bytes = OsString::from_vec(b"/a\xffb".to_vec());
        let outcome = untouched.call("vlan-bridge", "DEL").env(name, bytes).run().expect_ok();
        assert!(outcome.stdout.is_empty() && outcome.stderr.contains(&format!("{name}: ")), "{outcome}");
    }
}

#[test]
fn a_namespace_that_is_a_fifo_a_socket_or_a_circle_is_none() {
    let untouched = Untouched::new();
    let folder = Scratch::new("netns");
    let path = |name: &str| folder.path().join(name);
    run(Command::new("mkfifo").arg(path("fifo"))).expect_ok();
    let _listener = UnixListener::bind(path("socket")).unwrap();
    symlink(path("circle"), path("circle")).unwrap();
    for name in ["fifo", "socket", "circle"] {
        for (verb, code) in [("ADD", 4), ("CHECK", 3)] {
            let mut conf = untouched.conf("vlan-bridge");
            conf["prevResult"] = serde_json::json!({"cniVersion": "1.1.0"});
            let call = untouched.call("vlan-bridge", verb).stdin(conf.to_string());
            let parts = ["CNI_NETNS", "is not a network namespace", name];
            none(untouched.complaint(
                &format!("{verb} {name}"),
                &call.env("CNI_NETNS", path(name)),
                code,
                &parts,
            ));
        }
        untouched.call("vlan-bridge", "DEL").env("CNI_NETNS", path(name)).run().expect_ok();
    }
}
