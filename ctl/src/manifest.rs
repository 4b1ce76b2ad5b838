//! What install has put where, so that uninstall takes away that and no more.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::files;

/// Where we remember things across reboots.
const FOLDER: &str = "/var/lib/vlan-bridge";

/// The files that install has put onto this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Plugins.
    pub(crate) binaries: Vec<PathBuf>,
    /// Network lists.
    pub(crate) lists: Vec<PathBuf>,
}

impl Manifest {
    /// Reads it; an empty one if nothing was ever installed.
    pub(crate) fn read() -> Result<Manifest> {
        let path = path();
        let Some(content) = files::read(&path)? else { return Ok(Manifest::default()) };
        let value: Value = serde_json::from_slice(&content)
            .with_context(|| format!("cannot understand {}", path.display()))?;
        let paths = |key: &str| {
            let list = value[key].as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(PathBuf::from).collect()
        };
        Ok(Manifest { binaries: paths("binaries"), lists: paths("lists") })
    }

    /// Notes a plugin, once.
    pub(crate) fn add_binary(&mut self, path: &Path) {
        add(&mut self.binaries, path);
    }

    /// Notes a network list, once.
    pub(crate) fn add_list(&mut self, path: &Path) {
        add(&mut self.lists, path);
    }

    /// Writes it, before what it names is put there.
    pub(crate) fn write(&self) -> Result<()> {
        let value = json!({"binaries": self.binaries, "lists": self.lists});
        files::put(&path(), format!("{value:#}\n").as_bytes(), 0o644)
    }

    /// Forgets all.
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

/// Where the list is kept that another one took the place of; no runtime looks there.
pub(crate) fn previous(list: &Path) -> PathBuf {
    kept().join(list.file_name().unwrap_or_default())
}

/// The folder of lists that others took the place of.
pub(crate) fn kept() -> PathBuf {
    Path::new(FOLDER).join("previous")
}
