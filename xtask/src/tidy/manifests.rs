//! Checks the manifests against Kubernetes' published OpenAPI schema: every key is known and of its type, and
//! none is missing.
//!
//! `data/kubernetes-1.25.json` is the part of that schema (Kubernetes 1.25, Apache License 2.0) that our
//! kinds use, without its descriptions. An older release's schema is better, because later releases know its
//! keys too.

use super::Finding;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SCHEMA: &str = include_str!("../../data/kubernetes-1.25.json");
const FOLDER: &str = "deploy/base";
const COMPONENTS: &str = "deploy/components";
const PATCH: &str = "daemonset.yaml";

/// Checks every manifest, and that kustomize is told of each.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let schema: Map<String, Value> = serde_json::from_str(SCHEMA).context("the schema is no JSON")?;
    let (mut findings, mut files) = (Vec::new(), BTreeSet::new());
    let folder = root.join(FOLDER);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {FOLDER}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == "kustomization.yaml" {
            continue;
        }
        let text = fs::read_to_string(folder.join(&name)).with_context(|| format!("cannot read {name}"))?;
        let path = format!("{FOLDER}/{name}");
        findings.extend(complaints(&schema, &text).into_iter().map(|message| finding(&path, message)));
        files.insert(name);
    }
    let path = format!("{FOLDER}/kustomization.yaml");
    let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
    let kustomization: Value = serde_yaml_ng::from_str(&text).with_context(|| path.clone())?;
    let named = kustomization["resources"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let named: BTreeSet<String> = named.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if named != files {
        findings.push(finding(&path, format!("resources are {named:?}, the files {files:?}")));
    }
    findings.extend(components(root, &schema, &text)?);
    Ok(findings)
}

/// The patches for special nodes. Each is a folder whose kustomization names its file. A comment in the
/// base's kustomization names the folder.
fn components(root: &Path, schema: &Map<String, Value>, base: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for entry in fs::read_dir(root.join(COMPONENTS)).with_context(|| format!("cannot read {COMPONENTS}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let folder = format!("{COMPONENTS}/{name}");
        if !base.contains(&format!("../components/{name}\n")) {
            findings.push(finding(&folder, format!("{FOLDER}/kustomization.yaml does not name it")));
        }
        let read = |file: &str| {
            let path = format!("{folder}/{file}");
            fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))
        };
        let kustomization: Value = serde_yaml_ng::from_str(&read("kustomization.yaml")?)?;
        if kustomization["kind"] != "Component" || kustomization["patches"][0]["path"] != PATCH {
            let wanted = format!("must be a Component whose first patch is {PATCH}");
            findings.push(finding(&format!("{folder}/kustomization.yaml"), wanted));
        }
        let said = patch_complaints(schema, &read(PATCH)?);
        findings.extend(said.into_iter().map(|message| finding(&format!("{folder}/{PATCH}"), message)));
    }
    Ok(findings)
}

/// The same for a patch. It leaves out unchanged keys, and deletes others with a special key.
fn patch_complaints(schema: &Map<String, Value>, text: &str) -> Vec<String> {
    let mut said = complaints(schema, text);
    said.retain(|message| !message.ends_with(": missing") && !message.ends_with(".$patch: no such key"));
    said
}

fn finding(path: &str, message: String) -> Finding {
    Finding { path: path.to_owned(), line: 1, message }
}

/// What is wrong with the documents of a file.
fn complaints(schema: &Map<String, Value>, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let document = match Value::deserialize(document) {
            Ok(document) => document,
            Err(error) => {
                found.push(format!("document {}: {error}", index + 1));
                // The beginning of the next document is unknown.
                break;
            }
        };
        let kind = document["kind"].as_str().unwrap_or_default();
        match definition(schema, kind, document["apiVersion"].as_str().unwrap_or_default()) {
            Some(wanted) => compare(schema, wanted, &document, kind, &mut found),
            None => found
                .push(format!("document {}: no kind {kind:?} of that apiVersion in the schema", index + 1)),
        }
    }
    found
}

/// The definition of a kind: its own keys say which `apiVersion` it is.
fn definition<'a>(schema: &'a Map<String, Value>, kind: &str, version: &str) -> Option<&'a Value> {
    let says = |wanted: &Value, key: &str, value: &str| {
        wanted["properties"][key]["enum"].as_array().is_some_and(|all| all.iter().any(|one| one == value))
    };
    schema.values().find(|wanted| says(wanted, "kind", kind) && says(wanted, "apiVersion", version))
}

/// Compares a value with its schema. Stricter than the server: a null is an error, because it is never
/// intended.
fn compare(schema: &Map<String, Value>, wanted: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(target) = wanted["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap_or(target);
        match schema.get(name) {
            Some(wanted) => compare(schema, wanted, value, path, found),
            None => found.push(format!("{path}: the schema has no {name}")),
        }
        return;
    }
    if let Some(choices) = wanted["oneOf"].as_array() {
        if !choices.iter().any(|choice| has_type(choice, value)) {
            found.push(format!("{path}: {value} is of no type that it may have"));
        }
        return;
    }
    if !has_type(wanted, value) {
        found.push(format!("{path}: {value} should be of type {}", wanted["type"]));
        return;
    }
    if let Some(choices) = wanted["enum"].as_array()
        && !choices.contains(value)
    {
        found.push(format!("{path}: {value} is none of {}", wanted["enum"]));
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            compare(schema, &wanted["items"], item, &format!("{path}[{index}]"), found);
        }
    }
    if let Some(keys) = value.as_object() {
        compare_keys(schema, wanted, keys, path, found);
    }
}

fn compare_keys(
    schema: &Map<String, Value>,
    wanted: &Value,
    keys: &Map<String, Value>,
    path: &str,
    found: &mut Vec<String>,
) {
    for (key, value) in keys {
        let below = format!("{path}.{key}");
        match (wanted["properties"].get(key), wanted.get("additionalProperties")) {
            (Some(wanted), _) => compare(schema, wanted, value, &below, found),
            (None, Some(wanted)) if wanted.is_object() => compare(schema, wanted, value, &below, found),
            _ => found.push(format!("{below}: no such key")),
        }
    }
    let required = wanted["required"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    for key in required.iter().filter_map(Value::as_str).filter(|key| !keys.contains_key(*key)) {
        found.push(format!("{path}.{key}: missing"));
    }
}

/// Whether the value is of the type, or of one of the types, that the schema names.
fn has_type(wanted: &Value, value: &Value) -> bool {
    let actual = match value {
        Value::Null => return false,
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |name: &str| name == actual || (name == "integer" && (value.is_i64() || value.is_u64()));
    match &wanted["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings about the DaemonSet after one replacement.
    fn said(from: &str, to: &str) -> String {
        let path = crate::workspace::root().join(FOLDER).join("daemonset.yaml");
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(text.contains(from), "{from}");
        let schema = serde_json::from_str(SCHEMA).unwrap_or_default();
        complaints(&schema, &text.replacen(from, to, 1)).join("; ")
    }

    #[test]
    fn a_patch_has_no_keys_that_nobody_knows() {
        let schema = serde_json::from_str(SCHEMA).unwrap_or_default();
        let path = crate::workspace::root().join(COMPONENTS).join("selinux").join(PATCH);
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(text.contains("seLinuxOptions"));
        assert!(patch_complaints(&schema, &text).is_empty());
        let said = patch_complaints(&schema, &text.replace("seLinuxOptions", "selinuxOptions"));
        assert_eq!(said, ["DaemonSet.spec.template.spec.securityContext.selinuxOptions: no such key"]);
    }

    #[test]
    fn what_a_server_would_refuse_is_found() {
        assert_eq!(said("hostNetwork: true", "hostNetwork: true"), "");
        for (from, to, complaint) in [
            (
                "hostNetwork: true",
                "hostNetworks: true",
                "DaemonSet.spec.template.spec.hostNetworks: no such key",
            ),
            ("hostNetwork: true", "hostNetwork: yes please", "should be of type [\"boolean\",\"null\"]"),
            ("runAsUser: 0", "runAsUser: root", "securityContext.runAsUser: \"root\" should be of type"),
            ("drop: [ALL]", "drop: ALL", "capabilities.drop"),
            ("cpu: 5m", "cpu: [5m]", "is of no type that it may have"),
            ("apps/v1", "apps/v1beta1", "no kind \"DaemonSet\" of that apiVersion"),
            (
                "- name: vlan-bridge\n          image",
                "- title: vlan-bridge\n          image",
                "spec.containers[0].name: missing",
            ),
            ("kind: DaemonSet", "kind: [", "document 1"),
        ] {
            let found = said(from, to);
            assert!(found.contains(complaint), "{to}: {found}");
        }
    }
}
