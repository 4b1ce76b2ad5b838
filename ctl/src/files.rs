//! Writes files atomically, and reads files and directories.

use std::convert::identity;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Result, anyhow};
use cni_skel::draft;

use crate::denial;

/// Writes a file atomically: to a temporary file in the same directory, synced and renamed. Readers see the
/// whole old content or the whole new content, after a power failure too. A program that runs from the old
/// file keeps it. The temporary name begins with a dot and has no extension that a runtime reads.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    replace_atomically(path, |beside| write_new(beside, content, mode))
}

/// Creates a hard link atomically. Both paths must be in one file system.
pub(crate) fn hard_link(other: &Path, path: &Path) -> Result<()> {
    // rename(2) does nothing with two names of one file, and would leave the temporary one.
    if is_same(other, path) {
        return Ok(());
    }
    replace_atomically(path, |beside| {
        let _ = fs::remove_file(beside);
        fs::hard_link(other, beside)
    })
}

/// Whether two paths are the same file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    inode(one).is_some_and(|inode_of_one| Some(inode_of_one) == inode(other))
}

/// Lets `make` create a temporary file, and renames it to `path`.
fn replace_atomically(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(anyhow!("{} is not the path of a file", path.display()));
    };
    create_dir(folder)?;
    let beside = folder.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    draft::replace(path, &beside, make, identity).map_err(|error| failed(path, "write", &error))?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| failed(folder, "sync", &error))
}

/// Checks that files can be created in a directory, or the directory itself.
///
/// # Errors
/// If they cannot. Nothing was changed.
pub(crate) fn check_writable(folder: &Path) -> Result<()> {
    denial::may_write(folder).map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => failed(folder, "create", &error),
        _ => failed(folder, "write into it", &error),
    })
}

/// An error with the path, the action and the explanation.
fn failed(path: &Path, action: &str, error: &io::Error) -> anyhow::Error {
    // Creating and removing a file needs permission on its directory.
    let place = if action == "read" || path.is_dir() { Some(path) } else { path.parent() };
    let why = place.and_then(|place| denial::explain(place, error));
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    anyhow!("{}: cannot {action}: {error}{why}", path.display())
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = draft::create(path, OpenOptions::new().mode(mode))?;
    file.write_all(content)?;
    // Regardless of the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// `mkdir -p`.
pub(crate) fn create_dir(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(|error| failed(folder, "create", &error))
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> Result<u32> {
    let metadata = fs::metadata(path).map_err(|error| failed(path, "read", &error))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// The content of a file; none if the file does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed(path, "read", &error)),
    }
}

/// Removes a file. Returns false if it does not exist.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) => Err(failed(path, "remove", &error)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The names in a directory, sorted; none if the directory does not exist.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder, "read", &error)),
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
