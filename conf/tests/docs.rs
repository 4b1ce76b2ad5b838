//! The source, docs/configuration.md, docs/schema.json and docs/errors.md know the same keys and codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cni_conf::request::COMMON_KEYS;
use serde_json::Value;

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

/// As much of JSON Schema as ours uses.
fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let no = |why: &str| Err(format!("{value}: {why}"));
    if let Some(target) = schema["$ref"].as_str() {
        fits(root, &root["$defs"][target.rsplit('/').next().unwrap()], value)?;
    }
    let right_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        None => true,
        Some(other) => panic!("type {other}"),
    };
    if !right_type {
        return no("has another type");
    }
    if schema.get("const").is_some_and(|wanted| wanted != value)
        || schema["enum"].as_array().is_some_and(|all| !all.contains(value))
        || schema["maxLength"].as_u64().is_some_and(|most| value.as_str().unwrap().len() as u64 > most)
        || schema["minimum"].as_u64().is_some_and(|least| value.as_u64().unwrap() < least)
        || schema["maximum"].as_u64().is_some_and(|most| value.as_u64().unwrap() > most)
    {
        return no("is not allowed");
    }
    if let Some(choices) = schema["oneOf"].as_array()
        && choices.iter().filter(|choice| fits(root, choice, value).is_ok()).count() != 1
    {
        return no("is not just one of what it may be");
    }
    if let Some(condition) = schema.get("if")
        && fits(root, condition, value).is_ok()
    {
        fits(root, &schema["then"], value)?;
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.get(key.as_str().unwrap()).is_none() {
            return no(&format!("has no {key}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(wanted) => fits(root, wanted, inner)?,
            None if schema["additionalProperties"] == false && !key.starts_with("cni.dev/") => {
                return no(&format!("{key} is unknown"));
            }
            None => {}
        }
    }
    for inner in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
        fits(root, &schema["items"], inner)?;
    }
    Ok(())
}

#[test]
fn samples_fit_the_schema_and_mistakes_do_not() {
    let schema: Value = serde_json::from_str(&read("../docs/schema.json")).unwrap();
    let mut last = Value::Null;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "conflist") {
            let list: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            fits(&schema, &schema, &list).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            last = list;
        }
    }
    for (key, wrong) in [("mtuu", Value::from(1)), ("mtu", "9000".into()), ("vlan", 4095.into())] {
        let mut list = last.clone();
        list["plugins"][0][key] = wrong;
        assert!(fits(&schema, &schema, &list).is_err(), "{key}");
    }
}
