//! Tests of the verbs together, each with its own store.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use cni_conf::cni::env::Environment;
use cni_conf::cni::error::{CniError, code};
use cni_conf::request::Request;
use serde_json::{Value, json};

/// A node with a store of its own.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    pub(crate) ipam: Value,
}

impl Node {
    pub(crate) fn new(ipam: Value) -> Node {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ipam-verbs-{}-{next}", std::process::id()));
        Node { dir, ipam }
    }

    /// A slice of sixteen addresses.
    fn slice() -> Node {
        Node::new(json!({"subnet": "172.20.56.0/24", "slice": "172.20.56.16/28", "gateway": "172.20.56.1",
                         "routes": [{"dst": "0.0.0.0/0"}]}))
    }

    fn call_with(&self, verb: &str, id: &str, args: &str, keys: Value) -> Result<Option<Value>, CniError> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "vlan136", "ipam": self.ipam});
        config["ipam"]["dataDir"] = self.dir.to_str().unwrap().into();
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let env = Environment::parse(|name| {
            Some(match name {
                "CNI_COMMAND" => verb.into(),
                "CNI_CONTAINERID" => id.into(),
                "CNI_NETNS" => "/run/netns/none".into(),
                "CNI_IFNAME" => "eth0".into(),
                "CNI_PATH" => "/opt/cni/bin".into(),
                "CNI_ARGS" => args.into(),
                _ => return None,
            })
        })?;
        crate::run(&Request::parse(env, config.to_string().into_bytes())?)
    }

    pub(crate) fn call(&self, verb: &str, id: &str) -> Result<Option<Value>, CniError> {
        self.call_with(verb, id, "", json!({}))
    }

    /// Runs ADD and returns the assigned addresses.
    pub(crate) fn add(&self, id: &str) -> Result<Vec<String>, CniError> {
        self.add_with(id, "")
    }

    pub(crate) fn add_with(&self, id: &str, args: &str) -> Result<Vec<String>, CniError> {
        let result = self.call_with("ADD", id, args, json!({}))?.unwrap();
        let ips = result["ips"].as_array().unwrap();
        Ok(ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect())
    }

    /// The held addresses, sorted by name.
    pub(crate) fn held(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.join("vlan136")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn sixteen_pods_and_not_one_more() {
    let node = Node::slice();
    for i in 0..16 {
        assert_eq!(node.add(&format!("c{i}")), Ok(vec![format!("172.20.56.{}/24", 16 + i)]));
    }
    let held = node.held();
    let full = node.add("c16").unwrap_err();
    assert_eq!(full.code, code::TRY_AGAIN_LATER);
    assert_eq!(
        full.msg,
        "no free address in network vlan136: 172.20.56.16/28: 16 used, 0 cooling, 0 quarantined of 16"
    );
    assert_eq!(node.held(), held);
    assert_eq!(node.call("STATUS", ""), Ok(None), "a full slice does not fail STATUS");
    assert_eq!(node.call("DEL", "c5"), Ok(None));
    assert_eq!(node.add("c16"), Ok(vec!["172.20.56.21/24".into()]));
}

#[test]
fn the_result_carries_gateway_routes_and_dns() {
    let node = Node::slice();
    fs::create_dir(&node.dir).unwrap();
    let resolv_conf = node.dir.join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 10.0.0.53\n").unwrap();
    let mut ipam = node.ipam.clone();
    ipam["resolvConf"] = resolv_conf.to_str().unwrap().into();
    ipam["dataDir"] = node.dir.to_str().unwrap().into();
    let result = node.call_with("ADD", "c1", "", json!({"cniVersion": "1.0.0", "ipam": ipam})).unwrap();
    let expected = json!({"cniVersion": "1.0.0",
        "ips": [{"address": "172.20.56.16/24", "gateway": "172.20.56.1"}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.0.0.53"]}});
    assert_eq!(result, Some(expected));
}

#[test]
fn a_second_add_is_refused_and_del_may_come_twice() {
    let node = Node::slice();
    node.add("c1").unwrap();
    let error = node.add("c1").unwrap_err();
    assert_eq!(error.code, code::ALREADY_ALLOCATED);
    assert_eq!(
        error.msg,
        "eth0 of container c1 already holds 172.20.56.16 of network vlan136: it needs a DEL first"
    );
    assert_eq!(node.held(), ["172.20.56.16"]);
    for _ in 0..2 {
        assert_eq!(node.call("DEL", "c1"), Ok(None));
        assert_eq!(node.held(), [""; 0]);
    }
}

#[test]
fn all_sets_or_none() {
    let node = Node::new(json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "2001:db8::/64"}],
                                           [{"subnet": "10.1.0.0/30"}]]}));
    assert_eq!(node.add("c1").unwrap(), ["10.0.0.2/24", "2001:db8::2/64", "10.1.0.2/30"]);
    assert_eq!(node.add("c2").unwrap_err().code, code::TRY_AGAIN_LATER);
    assert_eq!(node.held(), ["10.0.0.2", "10.1.0.2", "2001:db8::2"]);
    node.call("DEL", "c1").unwrap();
    assert_eq!(node.held(), [""; 0]);
}

#[test]
fn requested_addresses() {
    let node = Node::new(json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "2001:db8::/64"}]]}));
    assert_eq!(node.add_with("c1", "IP=10.0.0.77/8").unwrap(), ["10.0.0.77/24", "2001:db8::2/64"]);
    let held = node.held();
    let refused = |args: &str, part: &str| {
        let error = node.add_with("c2", args).unwrap_err();
        assert_eq!(error.code, code::ADDRESS_UNAVAILABLE, "{args}");
        assert!(error.msg.contains(part), "{args}: {}", error.msg);
        assert_eq!(node.held(), held, "{args}");
    };
    refused("IP=10.0.0.77", "10.0.0.77 of 10.0.0.0/24 is in use");
    refused("IP=10.0.0.1", "is the gateway");
    refused("IP=10.0.9.9", "is not in");
    refused("IP=10.0.0.8,10.0.0.9", "second one");
    refused("IP=10.0.0.8,2001:db8::2", "2001:db8::2 of 2001:db8::/64 is in use");
}

#[test]
fn del_survives_a_broken_configuration() {
    let node = Node::slice();
    node.add("c1").unwrap();
    let broken = json!({"ipam": {"subnet": "nonsense", "ranges": 5, "routes": "x",
                                 "dataDir": node.dir.to_str().unwrap()}, "prevResult": 7, "runtimeConfig": []});
    assert_eq!(node.call_with("DEL", "c1", "nonsense", broken), Ok(None));
    assert_eq!(node.held(), [""; 0]);
    assert_eq!(Node::slice().call("DEL", "c1"), Ok(None), "no directory, nothing to do");
}

#[test]
fn gc_keeps_what_is_listed() {
    let node = Node::slice();
    for id in ["c1", "c2", "c3"] {
        node.add(id).unwrap();
    }
    fs::write(node.dir.join("vlan136/172.20.56.30"), "c2").unwrap();
    fs::write(node.dir.join("vlan136/172.20.56.31"), "c9").unwrap();
    assert_eq!(node.call("GC", ""), Ok(None));
    assert_eq!(node.held().len(), 5, "no list, nothing done");
    let list = |ids: &[&str]| {
        let list: Vec<Value> = ids.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
        json!({"cni.dev/valid-attachments": list})
    };
    assert_eq!(node.call_with("GC", "", "", list(&["c2"])), Ok(None));
    assert_eq!(node.held(), ["172.20.56.17", "172.20.56.30"]);
    let bad = json!({"cni.dev/valid-attachments": [{"containerID": "c1"}]});
    assert_eq!(node.call_with("GC", "", "", bad).unwrap_err().code, code::INVALID_CONFIG);
    assert_eq!(node.held().len(), 2, "a list that cannot be read releases nothing");
    assert_eq!(node.call_with("GC", "", "", list(&[])), Ok(None));
    assert_eq!(node.held(), [""; 0]);
    assert!(node.dir.join("vlan136/lock").exists() && node.dir.join("vlan136/last_reserved_ip.0").exists());
}

#[test]
fn gc_leaves_alone_what_is_no_lease() {
    let node = Node::slice();
    node.add("c1").unwrap();
    fs::create_dir(node.dir.join("vlan136/172.20.56.99")).unwrap();
    let none = json!({"cni.dev/valid-attachments": []});
    assert_eq!(node.call_with("GC", "", "", none), Ok(None));
    assert_eq!(node.held(), ["172.20.56.99"]);
}

#[test]
fn check_wants_a_lease() {
    let node = Node::slice();
    assert_eq!(node.call("CHECK", "c1").unwrap_err().code, code::CHECK_FAILED);
    node.add("c1").unwrap();
    assert_eq!(node.call("CHECK", "c1"), Ok(None));
    fs::remove_file(node.dir.join("vlan136/172.20.56.16")).unwrap();
    let error = node.call("CHECK", "c1").unwrap_err();
    assert!(
        error.msg.starts_with("eth0 of container c1 holds no address of network vlan136"),
        "{}",
        error.msg
    );
}

#[test]
fn status_tells_a_bad_configuration_from_a_bad_disk() {
    let node = Node::slice();
    assert_eq!(node.call("STATUS", ""), Ok(None));
    let bad = json!({"ipam": {"subnet": "x"}});
    assert_eq!(node.call_with("STATUS", "", "", bad).unwrap_err().code, code::INVALID_CONFIG);
    fs::remove_dir_all(&node.dir).unwrap();
    fs::write(&node.dir, b"a file").unwrap();
    assert_eq!(node.call("STATUS", "").unwrap_err().code, code::PLUGIN_NOT_AVAILABLE);
    assert_eq!(node.add("c1").unwrap_err().code, code::IO_FAILURE);
    fs::remove_file(&node.dir).unwrap();
}

#[test]
fn old_versions_are_refused_before_anything_is_claimed() {
    let node = Node::new(json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]}));
    let error = node.call_with("ADD", "c1", "", json!({"cniVersion": "0.2.0"})).unwrap_err();
    assert_eq!(error.code, code::UNSUPPORTED_FIELD);
    assert!(!node.dir.exists());
}
