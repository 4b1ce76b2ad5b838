//! What install has put where, so that uninstall takes away that and no more. Whoever changes it holds the
//! [lock](crate::lock).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{files, lists};

/// Where we remember things across reboots.
pub(crate) const FOLDER: &str = "/var/lib/vlan-bridge";

/// The files that install has put onto this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Plugins.
    pub(crate) binaries: Vec<PathBuf>,
    /// Network lists.
    pub(crate) lists: Vec<PathBuf>,
    /// Where the list of others is kept whose place one of these took.
    pub(crate) kept: BTreeMap<PathBuf, PathBuf>,
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
        let kept = value["kept"].as_object().into_iter().flatten();
        let kept = kept.filter_map(|(list, kept)| Some((list.into(), kept.as_str()?.into()))).collect();
        Ok(Manifest { binaries: paths("binaries"), lists: paths("lists"), kept })
    }

    /// Notes a plugin, once.
    pub(crate) fn add_binary(&mut self, path: &Path) {
        add(&mut self.binaries, path);
    }

    /// Notes a network list, once.
    pub(crate) fn add_list(&mut self, path: &Path) {
        add(&mut self.lists, path);
    }

    /// Keeps the list that is there, before another takes its place, and returns where: no runtime looks
    /// there. One of ours goes where our last one is kept; one of others takes the place of nothing that is
    /// kept, for uninstall gives it back.
    pub(crate) fn keep(&mut self, list: &Path, content: &[u8]) -> Result<PathBuf> {
        if self.lists.iter().any(|known| known == list) && lists::is_ours(content) {
            let kept = uninstalled_dir().join(list.file_name().unwrap_or_default());
            files::put(&kept, content, files::mode(list)?)?;
            return Ok(kept);
        }
        let kept = free_place(list, content)?;
        files::put(&kept, content, files::mode(list)?)?;
        self.kept.insert(list.to_owned(), kept.clone());
        Ok(kept)
    }

    /// Writes it, before what it names is put there.
    pub(crate) fn write(&self) -> Result<()> {
        let value = json!({"binaries": self.binaries, "lists": self.lists, "kept": self.kept});
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

/// A name in the folder of kept lists that no other content has: `NAME`, else `2-NAME` and so on.
fn free_place(list: &Path, content: &[u8]) -> Result<PathBuf> {
    let name = list.file_name().unwrap_or_default().to_string_lossy();
    let mut place = backup_dir().join(&*name);
    let mut count = 1;
    while files::read(&place)?.is_some_and(|there| there != content) {
        count += 1;
        place = backup_dir().join(format!("{count}-{name}"));
    }
    Ok(place)
}

/// The folder of lists of others that ours took the place of.
pub(crate) fn backup_dir() -> PathBuf {
    Path::new(FOLDER).join("previous")
}

/// The folder of lists of ours that others of ours took the place of, or that were taken away.
pub(crate) fn uninstalled_dir() -> PathBuf {
    backup_dir().join("ours")
}
