//! Every example, and every configuration in the README, is one that the plugins take, without a warning.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use cni_conf::network::Network;
use cni_conf::request::Request;
use common::environment;
use serde_json::Value;

/// Checks each entry of a network list as libcni would hand it to its plugin.
fn check(what: &str, list: &str) {
    let list: Value = serde_json::from_str(list).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut ours = 0;
    for plugin in list["plugins"].as_array().unwrap_or_else(|| panic!("{what}: no plugins")) {
        if plugin["type"] != "vlan-bridge" {
            continue;
        }
        ours += 1;
        let mut config = plugin.clone();
        for key in ["cniVersion", "name"] {
            config[key] = list[key].clone();
        }
        let request = Request::parse(environment(), config.to_string().into_bytes()).unwrap();
        request.log_settings().unwrap_or_else(|e| panic!("{what}: {e}"));
        let (network, warnings) = Network::parse(&request).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(warnings, Vec::<String>::new(), "{what}");
        let of_ipam: Vec<String> = network.addresses.into_iter().flat_map(|ipam| ipam.warnings).collect();
        assert_eq!(of_ipam, Vec::<String>::new(), "{what}");
    }
    assert!(ours > 0, "{what}: no entry of ours");
}

#[test]
fn every_example_is_taken_and_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "conflist") {
            continue;
        }
        assert!(table.contains(path.file_name().unwrap().to_str().unwrap()), "{}", path.display());
        check(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
        examples += 1;
    }
    assert!(examples >= 6, "{examples} examples");
}

#[test]
fn every_configuration_of_the_documents_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = vec![root.join("README.md"), root.join("deploy/README.md")];
    documents.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut blocks = 0;
    for path in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(path).unwrap();
        for rest in text.split("```json\n").skip(1) {
            check(&path.display().to_string(), rest.split("```").next().unwrap());
            blocks += 1;
        }
    }
    assert!(blocks >= 3, "{blocks} blocks");
}

#[test]
fn the_network_of_the_manifests_is_taken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/configmap.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(".conflist: |").expect("no list in the ConfigMap");
    // It ends where the JSON does.
    let list = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next().unwrap().unwrap();
    check("configmap.yaml", &list.to_string());
}
