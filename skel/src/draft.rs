//! Files that are complete or missing: written as a draft, under another name, and then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Lets `make` write the draft of a file, and renames the draft to `path`. A reader of `path` sees the whole
/// old file or the whole new one. If this fails, the old file stays, and the draft is removed. Only `make`
/// can sync the file. `failed` makes the error of a rename that the kernel refused.
pub fn replace<T, E>(
    path: &Path,
    draft: &Path,
    make: impl FnOnce(&Path) -> Result<T, E>,
    failed: impl FnOnce(io::Error) -> E,
) -> Result<T, E> {
    let made = make(draft).and_then(|made| fs::rename(draft, path).map(|()| made).map_err(failed));
    if made.is_err() {
        let _ = fs::remove_file(draft);
    }
    made
}

/// Creates the file of a draft, with `O_EXCL`. Removes one that a killed process left there.
pub fn create(draft: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.write(true).create_new(true);
    match options.open(draft) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(draft)?;
            options.open(draft)
        }
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::identity;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A folder of its own for a test, with the old file and the name of its draft.
    fn folder(test: &str) -> (PathBuf, PathBuf, PathBuf) {
        let folder = std::env::temp_dir().join(format!("draft-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let (path, draft) = (folder.join("file"), folder.join(".file"));
        fs::write(&path, "old").unwrap();
        (folder, path, draft)
    }

    fn write(draft: &Path) -> io::Result<()> {
        create(draft, &mut OpenOptions::new())?.write_all(b"new")
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_not_followed() {
        let (folder, path, draft) = folder("left");
        let other = folder.join("other");
        fs::write(&other, "other").unwrap();
        symlink(&other, &draft).unwrap();
        replace(&path, &draft, write, identity).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert!(fs::symlink_metadata(&draft).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_draft() {
        let (folder, path, draft) = folder("failure");
        let full = |draft: &Path| -> io::Result<()> {
            write(draft)?;
            Err(ErrorKind::StorageFull.into())
        };
        assert_eq!(replace(&path, &draft, full, identity).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert!(!draft.exists());
        // No file replaces a folder.
        let other = folder.join("other");
        fs::create_dir(&other).unwrap();
        let error = replace(&other, &draft, write, identity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        assert!(!draft.exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
