//! The index says whether records and tables are up to date.
//!
//! Every change of a directory sets its modification time. After a change, the plugin sets this time back to
//! a *mark* a few seconds ago and records the mark in the index. If the two are equal, no other program has
//! changed the directory since, and no process was killed half way through a change. The kernel's clock ticks
//! too slowly to compare its own times: two changes within one tick look like one. But it never sets a time
//! in the past.

use std::collections::BTreeMap;
use std::fs::{File, FileTimes, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kernel::open;
use serde_json::{Value, json};

use super::error::{StoreError, at};
use super::files::BLOCK;

/// The age of the mark: more than any tick, and than the time resolution of any file system.
const AGE: Duration = Duration::from_secs(10);
/// The index is one block.
const SIZE: usize = BLOCK;
/// The version of the index's layout.
const VERSION: u64 = 1;

/// Device, inode, modification and change time of a directory. The change time cannot be set, so a directory
/// that a backup restored with the time of its mark differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DirectoryState {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The state of a directory of leases that the records and tables describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The boot in which it was written.
    pub(super) boot: String,
    /// The machine that wrote it.
    pub(super) machine: String,
    /// The directory and its state.
    pub(super) directory: DirectoryState,
    /// Names of the ranges that have a table.
    pub(super) ranges: Vec<String>,
    /// Those of them that offer only what a shared pool grants. An older version of the plugin knows none and
    /// writes none.
    pub(super) shared: BTreeMap<String, Shown>,
}

/// What a table offers of a shared pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// The range set that it belongs to.
    pub(super) set: usize,
    /// The stamp of the granted addresses that it offers.
    pub(super) stamp: u64,
}

impl Shown {
    fn parse(value: &Value) -> Option<Shown> {
        let [set, stamp] = value.as_array()?.as_slice() else { return None };
        Some(Shown { set: usize::try_from(set.as_u64()?).ok()?, stamp: stamp.as_u64()? })
    }
}

impl Index {
    /// Reads the index. `None` if there is no readable one.
    pub(super) fn read(path: &Path) -> Option<Index> {
        Index::parse(&open::read(path, SIZE as u64).ok()?)
    }

    fn parse(bytes: &[u8]) -> Option<Index> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let directory = value.get("directory")?;
        let number = |key: &str| directory.get(key).and_then(Value::as_u64);
        let time = |key: &str, fraction: &str| {
            let whole = |key: &str| directory.get(key).and_then(Value::as_i64);
            Some((whole(key)?, whole(fraction)?))
        };
        let ranges = value.get("ranges")?.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
        (value.get("version")?.as_u64()? == VERSION).then_some(())?;
        Some(Index {
            boot: value.get("boot")?.as_str()?.to_owned(),
            machine: value.get("machine").and_then(Value::as_str).unwrap_or_default().to_owned(),
            directory: DirectoryState {
                device: number("device")?,
                inode: number("inode")?,
                modified: time("seconds", "nanoseconds")?,
                // An older version of the plugin did not record it. No directory has this default.
                changed: time("changedSeconds", "changedNanoseconds").unwrap_or_default(),
            },
            ranges: ranges.collect::<Option<_>>()?,
            shared: value
                .get("shared")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .filter_map(|(name, shown)| Some((name.clone(), Shown::parse(shown)?)))
                .collect(),
        })
    }

    /// Whether the directory is unchanged since the index was written.
    pub(super) fn describes(&self, directory: &Metadata) -> bool {
        self.directory == DirectoryState::of(directory)
    }

    /// Marks the directory and records the mark.
    pub(super) fn mark(&mut self, path: &Path, dir: &Path, handle: &File) -> Result<(), StoreError> {
        let mark = SystemTime::now() - AGE;
        handle.set_times(FileTimes::new().set_modified(mark)).map_err(at("mark", dir))?;
        // Read back, because some file systems do not store nanoseconds.
        self.directory = DirectoryState::of(&handle.metadata().map_err(at("read", dir))?);
        let mut value = json!({"version": VERSION, "boot": self.boot, "machine": self.machine, "ranges": self.ranges,
            "directory": self.directory.to_json()});
        for (name, Shown { set, stamp }) in &self.shared {
            value["shared"][name] = json!([set, stamp]);
        }
        let mut text = value.to_string().into_bytes();
        text.resize(SIZE.max(text.len()), b' ');
        open::to_write(path).and_then(|file| file.write_all_at(&text, 0)).map_err(at("write", path))
    }
}

impl DirectoryState {
    fn of(directory: &Metadata) -> DirectoryState {
        DirectoryState {
            device: directory.dev(),
            inode: directory.ino(),
            modified: (directory.mtime(), directory.mtime_nsec()),
            changed: (directory.ctime(), directory.ctime_nsec()),
        }
    }

    fn to_json(&self) -> Value {
        json!({"device": self.device, "inode": self.inode, "seconds": self.modified.0, "nanoseconds": self.modified.1,
            "changedSeconds": self.changed.0, "changedNanoseconds": self.changed.1})
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_mark_holds_until_the_directory_changes() {
        let dir = std::env::temp_dir().join(format!("ipam-index-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (path, leases) = (dir.join("index"), dir.join("leases"));
        fs::create_dir(&leases).unwrap();
        let handle = File::open(&leases).unwrap();
        assert_eq!(Index::read(&path), None);
        let shared = BTreeMap::from([("a-b".into(), Shown { set: 1, stamp: u64::MAX })]);
        let mut index = Index { boot: "b1".into(), ranges: vec!["a-b".into()], shared, ..Index::default() };
        for round in 0..50 {
            index.mark(&path, &leases, &handle).unwrap();
            assert_eq!(Index::read(&path).as_ref(), Some(&index));
            assert!(index.describes(&fs::metadata(&leases).unwrap()));
            fs::write(leases.join(format!("{round}")), b"").unwrap();
            assert!(!index.describes(&fs::metadata(&leases).unwrap()), "at once, within a tick of the clock");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn anything_else_is_no_index() {
        for bytes in [&b""[..], b"\0\0\0\0", b"{}", br#"{"version":2}"#, b"[1]"] {
            assert_eq!(Index::parse(bytes), None);
        }
    }
}
