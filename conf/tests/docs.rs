//! The source, docs/configuration.md, docs/schema.json and docs/errors.md know the same keys and codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cni_conf::request::COMMON_KEYS;
use serde_json::{Value, json};

/// By these a key is read; the key is the first text among the arguments, or a constant of the file.
const READERS: &[&str] = &[
    "value",
    "str",
    "bool",
    "opt_bool",
    "uint",
    "number",
    "uint_zero_as_none",
    "ip",
    "cidr",
    "section",
    "sections",
    "section_lists",
    "strings",
    "read",
    "absolute",
    "range_sets",
    "port",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The source of this crate without tests and without results; of these, what `routes` and `dns` have.
fn sources() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("tests.rs") && !path.to_string_lossy().contains("cni/result") {
                let text = fs::read_to_string(&path).unwrap();
                texts.push(text.split("#[cfg(test)]").next().unwrap().to_owned());
            }
        }
    }
    let decode = read("src/cni/result/decode.rs");
    texts.extend(
        decode.split("fn from_section").skip(1).map(|f| f.split("\n    }\n").next().unwrap().to_owned()),
    );
    texts
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

fn keys_of_source() -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = COMMON_KEYS.iter().map(|key| (*key).to_owned()).collect();
    for text in sources() {
        for reader in READERS {
            for (at, _) in text.match_indices(&format!("{reader}(")) {
                if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let arguments = text[at + reader.len() + 1..].split([')', ';']).next().unwrap();
                let constant = format!("const {}: &str = \"", arguments.trim());
                let key = match text.split_once(&constant) {
                    Some((_, rest)) => rest.split('"').next(),
                    None => arguments.split('"').nth(1),
                };
                keys.extend(key.filter(|key| is_key(key)).map(str::to_owned));
            }
        }
    }
    keys
}

fn keys_of_schema(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                if name == "properties" {
                    keys.extend(value.as_object().unwrap().keys().cloned());
                }
                keys_of_schema(value, keys);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys_of_schema(value, keys)),
        _ => {}
    }
}

/// What stands in the first column of the tables.
fn first_cells(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split('|').next().unwrap());
    cells.flat_map(|cell| cell.split(',').map(|name| name.trim().trim_matches('`').to_owned())).collect()
}

#[test]
fn schema_and_page_have_every_key_and_no_other() {
    let source = keys_of_source();
    assert!(source.contains("master") && source.contains("conflictDetection"), "{source:?}");
    let mut schema = BTreeSet::new();
    keys_of_schema(&serde_json::from_str(&read("../docs/schema.json")).unwrap(), &mut schema);
    assert_eq!(schema, source, "left: docs/schema.json, right: the source");
    let page = read("../docs/configuration.md");
    let quoted: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).map(|name| name.rsplit('.').next().unwrap()).collect();
    let missing: Vec<&String> = source.iter().filter(|key| !quoted.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
    let arguments = read("src/cni/args.rs");
    for cell in first_cells(&page) {
        let name = cell.rsplit('.').next().unwrap();
        let known = source.contains(name) || arguments.contains(&format!("\"{name}\" =>"));
        assert!(known, "docs/configuration.md: {cell} is no key of the source");
    }
}

#[test]
fn every_error_code_is_explained_and_no_other() {
    let text = read("src/cni/error.rs");
    let codes: BTreeSet<u32> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": u32 = "))
        .map(|(_, code)| code.trim_end_matches(';').parse().unwrap())
        .collect();
    let page = read("../docs/errors.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok());
    assert_eq!(rows.collect::<BTreeSet<u32>>(), codes, "left: docs/errors.md, right: the source");
}

fn example(name: &str) -> Value {
    serde_json::from_str(&read(&format!("../examples/{name}.conflist"))).unwrap()
}

/// What the schema finds wrong in a list, each with its place.
fn mistakes(list: &Value) -> Vec<String> {
    let schema = serde_json::from_str(&read("../docs/schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(list).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_example_fits_the_schema() {
    let mut examples = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "conflist") {
            let list = example(path.file_stem().unwrap().to_str().unwrap());
            assert_eq!(mistakes(&list), [""; 0], "{}", path.display());
            examples += 1;
        }
    }
    assert!(examples >= 4, "{examples} examples");
}

#[test]
fn a_mistake_in_an_example_does_not_fit_the_schema() {
    for (name, key, wrong, place) in [
        ("vlan", "/plugins/0/mtuu", json!(1), "/plugins/0"),
        ("vlan", "/plugins/0/mtu", json!("9000"), "/plugins/0/mtu"),
        ("vlan", "/plugins/0/bridge", json!("a-name-too-long-"), "/plugins/0/bridge"),
        ("vlan", "/plugins/0/uplink/vlan", json!(0), "/plugins/0/uplink/vlan"),
        ("vlan", "/plugins/0/uplink", json!({"vlan": 136}), "/plugins/0/uplink"),
        ("vlan", "/plugins/0/ipam/conflictDetection", json!("x"), "/plugins/0/ipam/conflictDetection"),
        ("trunk", "/plugins/0/vlan", json!(4095), "/plugins/0/vlan"),
        ("kubernetes", "/pluginz", json!([]), ""),
    ] {
        let mut list = example(name);
        let (section, own) = key.rsplit_once('/').unwrap();
        list.pointer_mut(section).unwrap()[own] = wrong;
        let found = mistakes(&list);
        assert!(found.len() == 1 && found[0].starts_with(&format!("{place}: ")), "{name} {key}: {found:?}");
    }
}
