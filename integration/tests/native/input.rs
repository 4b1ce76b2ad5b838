//! Bad input is refused with the right code and a message with key and value, and nothing is touched. This
//! file has the helpers and the cases that both plugins share.

pub(crate) mod bridge;
pub(crate) mod environment;
pub(crate) mod ipam;
pub(crate) mod node;
pub(crate) mod tolerated;

use integration::{Call, Pod, Site, Snapshot, merge};
use serde_json::{Value, json};

/// A change of the good configuration (a JSON merge patch, RFC 7396: null removes a key), the expected error
/// code, and the parts that the message must have.
pub(crate) type Row = (Value, u64, &'static [&'static str]);

/// A node and a pod that a refused call must not touch.
pub(crate) struct Untouched {
    pub(crate) site: Site,
    pub(crate) pod: Pod,
    before: [Snapshot; 2],
}

impl Untouched {
    pub(crate) fn new() -> Untouched {
        Untouched::with(|_| {})
    }

    /// With a node that `prepare` changes first.
    pub(crate) fn with(prepare: impl FnOnce(&Site)) -> Untouched {
        let (site, pod) = (Site::new(), Pod::new());
        prepare(&site);
        let before = [Snapshot::of(&site.node), Snapshot::of(&pod)];
        Untouched { site, pod, before }
    }

    /// The site's good configuration, for the plugin of that name.
    pub(crate) fn conf(&self, plugin: &str) -> Value {
        let mut list = self.site.list();
        list["plugins"][0]["type"] = json!(plugin);
        self.site.node.plugin(&list).conf
    }

    /// A good call.
    pub(crate) fn call(&self, plugin: &str, verb: &str) -> Call<'_> {
        let mut list = self.site.list();
        list["plugins"][0]["type"] = json!(plugin);
        self.site.node.plugin(&list).call(verb, &self.pod.eth0())
    }

    /// The fault in the refusal of a call, if any.
    pub(crate) fn complaint(&self, what: &str, call: &Call<'_>, code: u64, parts: &[&str]) -> Option<String> {
        let outcome = call.run();
        let document: Value = match serde_json::from_str(&outcome.stdout) {
            Ok(document) => document,
            Err(error) => {
                return Some(format!("{what}: not one JSON document on stdout: {error}\n{outcome}"));
            }
        };
        if outcome.ok() || document["code"] != code {
            return Some(format!("{what}: code {code} was expected\n{outcome}"));
        }
        let message = document["msg"].as_str().unwrap_or_default();
        if let Some(part) = parts.iter().find(|part| !message.contains(*part)) {
            return Some(format!("{what}: {part:?} is not in {message:?}"));
        }
        let mut difference = self.before[0].difference(&Snapshot::of(&self.site.node));
        difference.extend(self.before[1].difference(&Snapshot::of(&self.pod)));
        if self.site.node.data_dir().exists() {
            difference.push("+ the IPAM plugin's folder".into());
        }
        (!difference.is_empty()).then(|| format!("{what}: this was touched:\n{}", difference.join("\n")))
    }

    /// Tries every row with ADD, and panics at the first fault.
    #[track_caller]
    pub(crate) fn refuses(&self, plugin: &str, rows: &[Row]) {
        let complaint = rows.iter().find_map(|(patch, code, parts)| {
            let mut conf = self.conf(plugin);
            merge(&mut conf, patch);
            let call = self.call(plugin, "ADD").stdin(conf.to_string());
            self.complaint(&format!("{plugin} {patch}"), &call, *code, parts)
        });
        assert!(complaint.is_none(), "{}", complaint.unwrap_or_default());
    }
}

const PLUGINS: [&str; 2] = ["vlan-bridge", "vlan-bridge-ipam"];

#[test]
fn keys_that_every_plugin_has() {
    let untouched = Untouched::new();
    let long = "n".repeat(181);
    for plugin in PLUGINS {
        untouched.refuses(
            plugin,
            &[
                (json!({"cniVersion": "9.0.0"}), 1, &["cniVersion", "9.0.0"]),
                (json!({"cniVersion": 1}), 1, &["cniVersion", "1"]),
                (json!({"cniVersion": ["1.1.0"]}), 1, &["cniVersion", "[\"1.1.0\"]"]),
                (json!({"name": null}), 7, &["name", "missing"]),
                (json!({"name": ""}), 7, &["name", "missing"]),
                (json!({"name": 7}), 7, &["name", "7"]),
                (json!({"name": "a/b"}), 7, &["name", "a/b"]),
                (json!({"name": ".."}), 7, &["name", "\"..\""]),
                (json!({"name": "../../etc"}), 7, &["name", "../../etc"]),
                (json!({"name": "a b"}), 7, &["name", "a b"]),
                (json!({"name": "a\u{0}b"}), 7, &["name", "a\\u0000b"]),
                (json!({"name": "-a"}), 7, &["name", "-a"]),
                (json!({"name": "réseau"}), 7, &["name", "réseau"]),
                (json!({"name": long}), 7, &["name", "181"]),
                (json!({"logFile": 7}), 7, &["logFile", "7"]),
                (json!({"logFile": "relative.log"}), 7, &["logFile", "relative.log"]),
                (json!({"logFile": "/tmp/a\u{0}b"}), 7, &["logFile"]),
                (json!({"logLevel": "loud"}), 7, &["logLevel", "loud"]),
                (json!({"logLevel": 3}), 7, &["logLevel", "3"]),
                (json!({"ipam": "text"}), 7, &["ipam", "text"]),
                (json!({"ipam": [1]}), 7, &["ipam", "[1]"]),
                (json!({"args": 7}), 7, &["args", "7"]),
                (json!({"args": {"cni": 7}}), 7, &["args.cni", "7"]),
                (json!({"runtimeConfig": "x"}), 7, &["runtimeConfig", "x"]),
            ],
        );
    }
}

#[test]
fn stdin_that_is_no_configuration() {
    let untouched = Untouched::new();
    let good = untouched.conf("vlan-bridge").to_string();
    let spaces = vec![b' '; 10 << 20];
    let mut large = untouched.conf("vlan-bridge");
    large["args"] = json!({"filler": "x".repeat(10 << 20)});
    let rows: [(&str, Vec<u8>, &[&str]); 11] = [
        ("empty", vec![], &["stdin"]),
        ("white space", b" \n".to_vec(), &["stdin"]),
        ("no JSON", b"bridge: br136".to_vec(), &["stdin", "line 1"]),
        ("cut short", good.as_bytes()[..good.len() - 1].to_vec(), &["stdin", "EOF"]),
        ("two documents", format!("{good}{good}").into_bytes(), &["stdin"]),
        ("a list", b"[]".to_vec(), &["stdin", "object"]),
        ("null", b"null".to_vec(), &["stdin", "object"]),
        ("not UTF-8", b"{\"name\": \"\xff\"}".to_vec(), &["stdin"]),
        ("too deep", [b'['; 100_000].to_vec(), &["stdin"]),
        ("10 MB of white space", spaces, &["stdin", "4194304"]),
        ("10 MB of configuration", large.to_string().into_bytes(), &["stdin", "4194304"]),
    ];
    for plugin in PLUGINS {
        for verb in ["ADD", "DEL", "CHECK"] {
            for (what, stdin, parts) in &rows {
                let call = untouched.call(plugin, verb).stdin(stdin.clone());
                let complaint = untouched.complaint(&format!("{plugin} {verb} {what}"), &call, 6, parts);
                assert!(complaint.is_none(), "{}", complaint.unwrap());
            }
        }
    }
}

#[test]
fn a_list_of_valid_attachments_is_in_gc_what_prev_result_is_in_check() {
    let untouched = Untouched::new();
    let rows: [(&str, Value, u64, &[&str]); 6] = [
        ("CHECK", json!({"prevResult": null}), 7, &["prevResult", "missing"]),
        ("CHECK", json!({"prevResult": []}), 7, &["prevResult"]),
        (
            "CHECK",
            json!({"prevResult": {"ips": [{"address": "x"}]}}),
            7,
            &["prevResult.ips[0].address", "\"x\""],
        ),
        ("CHECK", json!({"prevResult": {"interfaces": 7}}), 7, &["prevResult.interfaces", "7"]),
        ("CHECK", json!({"prevResult": {"cniVersion": "7.0.0"}}), 1, &["7.0.0"]),
        ("GC", json!({"cni.dev/valid-attachments": "all"}), 7, &["cni.dev/valid-attachments", "all"]),
    ];
    for (verb, patch, code, parts) in rows {
        let mut conf = untouched.conf("vlan-bridge");
        merge(&mut conf, &patch);
        let call = untouched.call("vlan-bridge", verb).stdin(conf.to_string());
        let complaint = untouched.complaint(&format!("{verb} {patch}"), &call, code, parts);
        assert!(complaint.is_none(), "{}", complaint.unwrap());
    }
}
