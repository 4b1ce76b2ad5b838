//! Records which files install has written, so that uninstall removes exactly these. Changing it needs the
//! [lock](crate::lock).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{files, lists};

/// Persistent state of install.
pub(crate) const FOLDER: &str = "/var/lib/vlan-bridge";

/// The files that install has written to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Plugins.
    pub(crate) binaries: Vec<PathBuf>,
    /// Network lists.
    pub(crate) lists: Vec<PathBuf>,
    /// The agent's program and unit.
    pub(crate) agent: Vec<PathBuf>,
    /// The copies of the foreign lists that install replaced, by the path of the list.
    pub(crate) kept: BTreeMap<PathBuf, PathBuf>,
}

impl Manifest {
    /// Reads the manifest. It is empty if nothing was ever installed.
    pub(crate) fn read() -> Result<Manifest> {
        let path = path();
        let Some(content) = files::read(&path)? else { return Ok(Manifest::default()) };
        let value: Value =
            serde_json::from_slice(&content).with_context(|| format!("cannot parse {}", path.display()))?;
        let paths = |key: &str| {
            let list = value[key].as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(PathBuf::from).collect()
        };
        let kept = value["kept"].as_object().into_iter().flatten();
        let kept = kept.filter_map(|(list, kept)| Some((list.into(), kept.as_str()?.into()))).collect();
        Ok(Manifest { binaries: paths("binaries"), lists: paths("lists"), agent: paths("agent"), kept })
    }

    /// Adds a plugin, once.
    pub(crate) fn add_binary(&mut self, path: &Path) {
        add(&mut self.binaries, path);
    }

    /// Adds a network list, once.
    pub(crate) fn add_list(&mut self, path: &Path) {
        add(&mut self.lists, path);
    }

    /// Adds the agent's files, once.
    pub(crate) fn add_agent(&mut self, files: &[&Path]) {
        files.iter().for_each(|path| add(&mut self.agent, path));
    }

    /// Copies a list that is about to be replaced to a directory that no runtime reads, and returns the
    /// copy's path. The copy of a vlan-bridge list overwrites the last one. The copy of a foreign list
    /// overwrites nothing, because uninstall restores it.
    pub(crate) fn back_up(&mut self, list: &Path, content: &[u8]) -> Result<PathBuf> {
        if self.lists.iter().any(|known| known == list) && lists::names_vlan_bridge(content) {
            let kept = uninstalled_dir().join(list.file_name().unwrap_or_default());
            files::write_atomically(&kept, content, files::mode(list)?)?;
            return Ok(kept);
        }
        let kept = unused_path(list, content)?;
        files::write_atomically(&kept, content, files::mode(list)?)?;
        self.kept.insert(list.to_owned(), kept.clone());
        Ok(kept)
    }

    /// Writes the manifest, before the files that it names.
    pub(crate) fn write(&self) -> Result<()> {
        let value =
            json!({"binaries": self.binaries, "lists": self.lists, "agent": self.agent, "kept": self.kept});
        files::write_atomically(&path(), format!("{value:#}\n").as_bytes(), 0o644)
    }

    /// Deletes the manifest.
    pub(crate) fn remove() -> Result<()> {
        files::remove(&path()).map(drop)
    }
}

fn add(paths: &mut Vec<PathBuf>, path: &Path) {
    if !paths.iter().any(|known| known == path) {
        paths.push(path.to_owned());
    }
}

fn path() -> PathBuf {
    Path::new(FOLDER).join("installed.json")
}

/// An unused name in the backup directory: `NAME`, else `2-NAME` and so on. A file with the same content
/// counts as unused.
fn unused_path(list: &Path, content: &[u8]) -> Result<PathBuf> {
    let name = list.file_name().unwrap_or_default().to_string_lossy();
    let mut place = backup_dir().join(&*name);
    let mut count = 1;
    while files::read(&place)?.is_some_and(|there| there != content) {
        count += 1;
        place = backup_dir().join(format!("{count}-{name}"));
    }
    Ok(place)
}

/// The directory of the foreign lists that install replaced.
pub(crate) fn backup_dir() -> PathBuf {
    Path::new(FOLDER).join("previous")
}

/// The directory of the vlan-bridge lists that install replaced or uninstall removed.
pub(crate) fn uninstalled_dir() -> PathBuf {
    backup_dir().join("ours")
}
