//! Files that others read while we write them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::denial;

/// Puts a file in its place in one step: written beside, synced, renamed. Whoever opens the name gets the old
/// content or the new one, whole, after a power cut too; who runs the old one keeps it. The name beside
/// begins with a dot and ends like nothing that a runtime reads.
pub(crate) fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    put_by(path, |beside| write(beside, content, mode))
}

/// Makes a name of another file, which is in the same file system, in one step.
pub(crate) fn link(other: &Path, path: &Path) -> Result<()> {
    put_by(path, |beside| {
        let _ = fs::remove_file(beside);
        fs::hard_link(other, beside)
    })
}

/// Whether two names are of one file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    inode(one).is_some_and(|inode_of_one| Some(inode_of_one) == inode(other))
}

/// Puts what `make` makes beside a path in its place.
fn put_by(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(anyhow!("{} is not the path of a file", path.display()));
    };
    make_folder(folder)?;
    let beside = folder.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    let outcome = make(&beside).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = outcome {
        // What is left of a write that failed is no use to anybody.
        let _ = fs::remove_file(&beside);
        return Err(failed(path, "write", &error));
    }
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| failed(folder, "sync", &error))
}

/// Whether files can be made in a folder, or the folder itself.
///
/// # Errors
/// Why not, before anything was touched.
pub(crate) fn check_folder(folder: &Path) -> Result<()> {
    denial::may_write(folder).map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => failed(folder, "create", &error),
        _ => failed(folder, "write into it", &error),
    })
}

/// Which file, and what could not be done with it.
fn failed(path: &Path, action: &str, error: &io::Error) -> anyhow::Error {
    // A file comes and goes by leave of its folder.
    let place = if action == "read" || path.is_dir() { Some(path) } else { path.parent() };
    let why = place.and_then(|place| denial::explain(place, error));
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    anyhow!("{}: cannot {action}: {error}{why}", path.display())
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // One of a run that was killed, whose process id has come round.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // Whatever the umask took away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// `mkdir -p`.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(|error| failed(folder, "create", &error))
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> Result<u32> {
    let metadata = fs::metadata(path).map_err(|error| failed(path, "read", &error))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// The content of a file; none if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed(path, "read", &error)),
    }
}

/// Removes a file; false if there is none.
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

/// The names in a folder, sorted; none if there is no such folder.
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
