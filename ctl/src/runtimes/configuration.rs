//! Parses the runtimes' configuration files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value as Json;
use toml::{Table, Value as Toml};

use crate::files;

/// The file name extensions that are read in a directory.
const ENDINGS: [&str; 4] = [".conf", ".toml", ".hcl", ".json"];

/// The files that a runtime reads. Later files override earlier ones.
#[derive(Debug, Default)]
pub(super) struct Configuration(pub(super) Vec<(PathBuf, Table)>);

impl Configuration {
    /// Reads files, their imports, and the files of directories. Missing files are skipped.
    ///
    /// # Errors
    /// A file that cannot be read or parsed. Its directories would be missing.
    pub(super) fn read(places: &[PathBuf]) -> Result<Configuration> {
        let mut files = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next: Vec<PathBuf> = places.iter().rev().cloned().collect();
        while let Some(place) = next.pop() {
            if place.is_dir() {
                let names = files::names(&place)?;
                let names =
                    names.iter().rev().filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)));
                next.extend(names.map(|name| place.join(name)));
                continue;
            }
            // Files may import each other.
            if !seen.insert(place.clone()) {
                continue;
            }
            let Some(content) = files::read(&place)? else { continue };
            let table = parse(&place, &String::from_utf8_lossy(&content))
                .with_context(|| format!("cannot parse {}", place.display()))?;
            next.extend(imports(&place, &table)?.into_iter().rev());
            files.push((place, table));
        }
        Ok(Configuration(files))
    }

    /// The directories at one of these keys, in the last file that has one of them.
    pub(super) fn folders(&self, keys: &[&[&str]]) -> Option<Vec<PathBuf>> {
        self.last(|table| keys.iter().find_map(|key| folders(at(table, key)?)))
    }

    /// The value that `get` finds in the last file that has one.
    pub(super) fn last<T>(&self, get: impl Fn(&Table) -> Option<T>) -> Option<T> {
        self.0.iter().rev().find_map(|(_, table)| get(table))
    }
}

/// The value at a key, which is a path of table names.
pub(super) fn at<'a>(table: &'a Table, key: &[&str]) -> Option<&'a Toml> {
    let (last, parents) = key.split_last()?;
    let mut table = table;
    for parent in parents {
        table = table.get(*parent)?.as_table()?;
    }
    table.get(*last)
}

/// A string or an array of strings, without empty ones.
fn folders(value: &Toml) -> Option<Vec<PathBuf>> {
    let texts: Vec<&str> = match value {
        Toml::String(text) => vec![text],
        Toml::Array(list) => list.iter().filter_map(Toml::as_str).collect(),
        _ => return None,
    };
    let folders: Vec<PathBuf> =
        texts.into_iter().filter(|text| !text.is_empty()).map(PathBuf::from).collect();
    (!folders.is_empty()).then_some(folders)
}

fn parse(path: &Path, text: &str) -> Result<Table> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("hcl") => Ok(nomad(|key| hcl(text, key))),
        Some("json") => {
            let value: Json = serde_json::from_str(text)?;
            // A repeatable block is an object or an array of objects.
            let client = if value["client"].is_array() { &value["client"][0] } else { &value["client"] };
            Ok(nomad(|key| client[key].as_str().map(str::to_owned)))
        }
        _ => Ok(text.parse()?),
    }
}

/// Nomad's CNI settings. Its plugin path separates directories with colons.
fn nomad(get: impl Fn(&str) -> Option<String>) -> Table {
    let mut client = Table::new();
    if let Some(path) = get("cni_path") {
        let folders = path.split(':').map(|folder| Toml::String(folder.to_owned()));
        client.insert("cni_path".into(), Toml::Array(folders.collect()));
    }
    client.extend(get("cni_config_dir").map(|folder| ("cni_config_dir".into(), Toml::String(folder))));
    Table::from_iter([("client".to_owned(), Toml::Table(client))])
}

/// The string that HCL assigns to a key in any block: `cni_path = "/opt/cni/bin"`. The two keys in question
/// exist in one block only.
fn hcl(text: &str, key: &str) -> Option<String> {
    let assigned = |line: &str| {
        let value = line.trim_start().strip_prefix(key)?.trim_start().strip_prefix('=')?;
        let (value, _) = value.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(value.to_owned())
    };
    // A block may be on one line: client { cni_path = "…" }
    text.lines().flat_map(|line| line.split(['{', ';'])).filter_map(assigned).next_back()
}

/// The files in containerd's `imports`: absolute, or relative to the file's directory. The last part may
/// have `*`.
fn imports(file: &Path, table: &Table) -> Result<Vec<PathBuf>> {
    let named = table.get("imports").and_then(Toml::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut paths = Vec::new();
    for import in named.iter().filter_map(Toml::as_str) {
        let path = file.parent().unwrap_or(Path::new("/")).join(import);
        let (Some(folder), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            continue;
        };
        if !pattern.contains(['*', '?']) {
            paths.push(path);
            continue;
        }
        let names = files::names(folder)?;
        paths.extend(names.iter().filter(|name| matches(pattern, name)).map(|name| folder.join(name)));
    }
    Ok(paths)
}

/// Whether a name matches a pattern with `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            starts.into_iter().any(|at| matches(rest.as_str(), &name[at..]))
        }
        Some(letter) => {
            let mut name = name.chars();
            name.next().is_some_and(|own| letter == '?' || letter == own)
                && matches(rest.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_globs_do() {
        for (pattern, name, is_match) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml.bak", false),
            ("runtime_*.toml", "runtime_a.toml", true),
            ("?.toml", "ab.toml", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn nomads_keys_are_read_in_both_of_its_languages() {
        let keys: [&[&str]; 2] = [&["client", "cni_path"], &["client", "cni_config_dir"]];
        let both = |name: &str, text: &str| {
            let read = Configuration(vec![(name.into(), parse(Path::new(name), text).unwrap())]);
            keys.map(|key| read.folders(&[key]))
        };
        let expected = [Some(vec!["/a".into(), "/b".into()]), Some(vec![PathBuf::from("/c")])];
        let text = "client {\n  enabled = true\n  # cni_path = \"/x\"\n  cni_path       = \"/a:/b\"\n  cni_config_dir = \"/c\"\n}\n";
        assert_eq!(both("n.hcl", text), expected);
        assert_eq!(both("n.hcl", "client { cni_path = \"/a:/b\"; cni_config_dir = \"/c\" }"), expected);
        for text in [
            r#"{"client": {"cni_path": "/a:/b", "cni_config_dir": "/c"}}"#,
            r#"{"client": [{"cni_path": "/a:/b", "cni_config_dir": "/c"}]}"#,
        ] {
            assert_eq!(both("n.json", text), expected);
        }
        assert_eq!(both("n.hcl", "server { enabled = true }"), [None, None]);
    }
}
