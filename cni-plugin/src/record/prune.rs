//! Records of nodes whose network namespace is gone: of a node in a container that was removed, or of a
//! namespace used for a test. No call will use them again.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni_conf::cni::error::{CniError, code};
use kernel::netns::{self, Namespace};
use serde_json::Value;

use crate::lock::{FOLDER, RecordLock};

/// Removes all records of nodes that are gone. A process may hold a node's namespace where it is not
/// visible to us. So a node stays while the namespace of one of its pods exists.
///
/// # Errors
/// The namespaces cannot be listed, or a folder cannot be removed.
pub fn prune() -> Result<(), CniError> {
    if of_gone_nodes()?.is_empty() {
        return Ok(());
    }
    let _alone = RecordLock::exclusive()?;
    // An ADD may have come first.
    of_gone_nodes()?.iter().try_for_each(|folder| remove(folder))
}

/// The folders of nodes that are gone.
fn of_gone_nodes() -> Result<Vec<PathBuf>, CniError> {
    let own = netns::identity()?;
    let mut others: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for kind in subfolders(Path::new(FOLDER))? {
        for folder in subfolders(&kind)? {
            let node = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            others.entry(node).or_default().push(folder);
        }
    }
    others.remove(&own);
    let mut gone = Vec::new();
    if others.is_empty() {
        return Ok(gone);
    }
    // A namespace made from here on has another name than these folders.
    let Some(living) = netns::in_use()? else { return Ok(gone) };
    for (_, folders) in others.into_iter().filter(|(node, _)| !living.contains(node)) {
        if !has_living_pod(&folders)? {
            gone.extend(folders);
        }
    }
    Ok(gone)
}

fn remove(folder: &Path) -> Result<(), CniError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", folder, &e)),
        _ => {
            log::info!("removed {}: the node's network namespace is gone", folder.display());
            Ok(())
        }
    }
}

/// Whether a record at or below these paths is of a pod whose namespace exists.
fn has_living_pod(paths: &[PathBuf]) -> Result<bool, CniError> {
    for path in paths {
        let is_living = if path.is_dir() {
            has_living_pod(&entries(path)?)?
        } else {
            let record = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            let netns = record.as_ref().and_then(|record| record["netns"].as_str());
            netns.map(Namespace::open).transpose()?.flatten().is_some()
        };
        if is_living {
            return Ok(true);
        }
    }
    Ok(false)
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, CniError> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// The entries of a folder. Empty if the folder does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CniError> {
    match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(|e| failed("list", folder, &e)),
    }
}

fn failed(what: &str, folder: &Path, error: &std::io::Error) -> CniError {
    CniError::new(code::IO_FAILURE, format!("{what} {}: {error}", folder.display()))
}
