//! Folders that go away with the test.

use crate::names;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of its own under the system's temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty folder whose name ends in `role`.
    pub fn new(role: &str) -> Scratch {
        let path = std::env::temp_dir().join(names::unique(role));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Scratch { path }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A panic here during a panic would hide the test's own message.
        let _ = fs::remove_dir_all(&self.path);
    }
}
