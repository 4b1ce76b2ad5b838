//! The software bill of materials: the crates whose code is in the shipped binaries, in `CycloneDX`'s JSON.
//!
//! `cargo tree` lists them, because only it chooses features as a build does. Their licences and origins are
//! in `cargo metadata`, their checksums in `Cargo.lock`.

use crate::command::{cargo, output};
use crate::{product, workspace};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A crate and its version.
type Crate = (String, String);

/// The linked crates, each with the crates that it uses.
type Graph = BTreeMap<Crate, BTreeSet<Crate>>;

/// The document for the shipped binaries of these targets together.
pub(crate) fn make(version: &str, triples: &[String]) -> Result<Value> {
    let mut graph = Graph::new();
    for triple in triples {
        let mut command = cargo();
        command.args(["tree", "--locked", "--no-dedupe", "--prefix", "depth", "--format", " {p}"]);
        // Build dependencies are not in the binaries.
        command.args(["--edges", "normal,no-proc-macro", "--target", triple]);
        for package in product::PACKAGES {
            command.args(["--package", package]);
        }
        read_tree(&output(&mut command)?, &mut graph)?;
    }
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata = serde_json::from_str(&metadata).context("`cargo metadata` printed no JSON")?;
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    document(version, &graph, &metadata, &sums(&lock))
}

/// Adds what `cargo tree --prefix depth --no-dedupe --format " {p}"` printed: `1 log v0.4.29`.
fn read_tree(text: &str, graph: &mut Graph) -> Result<()> {
    let mut path: Vec<Crate> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let (depth, name, version) = match words.as_slice() {
            [depth, name, version, ..] => (depth.parse::<usize>().ok(), *name, version.strip_prefix('v')),
            _ => (None, "", None),
        };
        let (Some(depth), Some(version)) = (depth.filter(|depth| *depth <= path.len()), version) else {
            anyhow::bail!("`cargo tree` printed {line:?}");
        };
        path.truncate(depth);
        let found = (name.to_owned(), version.to_owned());
        if let Some(user) = path.last() {
            graph.entry(user.clone()).or_default().insert(found.clone());
        }
        graph.entry(found.clone()).or_default();
        path.push(found);
    }
    Ok(())
}

/// The sums in a `Cargo.lock`.
fn sums(lock: &str) -> BTreeMap<Crate, String> {
    let of_block = |block: &str| {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    };
    lock.split("[[package]]").filter_map(of_block).collect()
}

fn document(version: &str, graph: &Graph, metadata: &Value, sums: &BTreeMap<Crate, String>) -> Result<Value> {
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    let mut components = Vec::new();
    for found in graph.keys() {
        let (name, version) = found;
        let package = packages
            .iter()
            .find(|package| package["name"] == name.as_str() && package["version"] == version.as_str())
            .with_context(|| format!("`cargo metadata` has no {name} {version}"))?;
        components.push(component(found, package, sums.get(found)));
    }
    let uses = |(user, used): (&Crate, &BTreeSet<Crate>)| json!({"ref": reference(user), "dependsOn": used.iter().map(reference).collect::<Vec<_>>()});
    // The whole release. It uses the packages that have a program.
    let whole = format!("vlan-bridge-{version}");
    let programs: Vec<String> =
        product::PACKAGES.iter().map(|name| reference(&((*name).to_owned(), version.to_owned()))).collect();
    let mut dependencies = vec![json!({"ref": whole, "dependsOn": programs})];
    dependencies.extend(graph.iter().map(uses));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application", "bom-ref": whole, "name": "vlan-bridge", "version": version,
            "licenses": [{"expression": env!("CARGO_PKG_LICENSE")}],
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// A crate. Crates of the workspace are in no registry, so they have no checksum and no package URL.
fn component(found: &Crate, package: &Value, sum: Option<&String>) -> Value {
    let (name, version) = found;
    let mut component = json!({
        "type": "library", "bom-ref": reference(found), "name": name, "version": version, "scope": "required",
    });
    if let Some(license) = package["license"].as_str() {
        // Cargo once took a slash for "or".
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(sum) = sum {
        component["purl"] = json!(reference(found));
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

/// A crate's package URL, by which the document refers to it.
fn reference((name, version): &Crate) -> String {
    format!("pkg:cargo/{name}@{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, version: &str) -> Crate {
        (name.to_owned(), version.to_owned())
    }

    const TREE: &str = "0 vlan-bridge v0.1.0 (/w/cni-plugin)\n1 log v0.4.2\n2 memchr v2.0.0\n1 memchr v2.0.0\n\n\
                        0 vlan-bridgectl v0.1.0 (/w/ctl)\n1 log v0.4.2\n2 memchr v2.0.0\n";

    fn graph() -> Graph {
        let mut graph = Graph::new();
        read_tree(TREE, &mut graph).unwrap();
        graph
    }

    #[test]
    fn a_tree_is_read_as_who_uses_whom() {
        let graph = graph();
        let (log, memchr) = (pair("log", "0.4.2"), pair("memchr", "2.0.0"));
        assert_eq!(graph.len(), 4);
        assert_eq!(graph[&pair("vlan-bridge", "0.1.0")], BTreeSet::from([log.clone(), memchr.clone()]));
        assert_eq!(graph[&pair("vlan-bridgectl", "0.1.0")], BTreeSet::from([log.clone()]));
        assert_eq!(graph[&log], BTreeSet::from([memchr.clone()]));
        assert!(graph[&memchr].is_empty());
        for wrong in ["log v1.0.0", "1 log v1.0.0", "0 log 1.0.0", "0 log"] {
            assert!(read_tree(wrong, &mut Graph::new()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_document_has_what_cyclonedx_requires() {
        let packages: Vec<Value> = [("vlan-bridge", "0.1.0"), ("vlan-bridgectl", "0.1.0"), ("log", "0.4.2")]
            .map(|(name, version)| json!({"name": name, "version": version, "license": "MIT/Apache-2.0"}))
            .into();
        let mut metadata = json!({"packages": packages});
        let sums =
            sums("version = 4\n\n[[package]]\nname = \"log\"\nversion = \"0.4.2\"\nchecksum = \"ab\"\n");
        assert!(document("0.1.0", &graph(), &metadata, &sums).is_err(), "memchr is not known");
        metadata["packages"].as_array_mut().unwrap().push(json!({"name": "memchr", "version": "2.0.0"}));
        let made = document("0.1.0", &graph(), &metadata, &sums).unwrap();
        assert_eq!((&made["bomFormat"], &made["specVersion"]), (&json!("CycloneDX"), &json!("1.5")));
        assert_eq!(
            made["components"][0],
            json!({
                "type": "library", "bom-ref": "pkg:cargo/log@0.4.2", "name": "log", "version": "0.4.2",
                "scope": "required", "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "purl": "pkg:cargo/log@0.4.2", "hashes": [{"alg": "SHA-256", "content": "ab"}],
            })
        );
        assert_eq!(made["components"][2].get("purl"), None, "{}", made["components"][2]);
        // Every reference has a target, and everything is listed once.
        let texts = |list: &Value, key: &str| -> Vec<String> {
            list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
        };
        let mut known = vec![made["metadata"]["component"]["bom-ref"].as_str().unwrap().to_owned()];
        known.extend(texts(&made["components"], "bom-ref"));
        assert_eq!(texts(&made["dependencies"], "ref"), known);
        for used in made["dependencies"].as_array().unwrap().iter().map(|one| &one["dependsOn"]) {
            assert!(used.as_array().unwrap().iter().all(|one| known.iter().any(|known| one == known)));
        }
    }
}
