//! A cpio archive in the `newc` format, the one form of an initramfs that every kernel reads
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::HashSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive in memory. Paths are relative to the guest's root. Parent folders are added automatically.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    seen: HashSet<String>,
}

impl Archive {
    /// An archive with nothing in it.
    pub(crate) fn new() -> Archive {
        Archive { bytes: Vec::new(), seen: HashSet::new() }
    }

    /// Whether the path is there already.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.seen.contains(path.trim_start_matches('/'))
    }

    /// Adds a folder.
    pub(crate) fn dir(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds a file. An existing one stays.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, content);
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, to: &str) {
        self.entry(path, SYMLINK | 0o777, to.as_bytes());
    }

    /// The archive's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        if path.is_empty() || !self.seen.insert(path.to_owned()) {
            return;
        }
        if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
            self.dir(parent);
        }
        self.record(path, mode, content);
    }

    fn record(&mut self, name: &str, mode: u32, content: &[u8]) {
        // Inodes identify hard links. Files with a single link need none.
        let (inode, uid, gid, links, mtime, device, checksum) = (0, 0, 0, 1, 0, [0; 4], 0);
        let head = [inode, mode as usize, uid, gid, links, mtime, content.len()];
        self.bytes.extend_from_slice(b"070701");
        for field in head.into_iter().chain(device).chain([name.len() + 1, checksum]) {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_folders_and_is_aligned() {
        let mut archive = Archive::new();
        archive.file("/a/b", 0o644, b"hello");
        archive.file("a/b", 0o644, b"again");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let names: Vec<usize> = ["a\0", "a/b\0", "TRAILER!!!\0"].map(|name| text.find(name).unwrap()).into();
        assert!(names.is_sorted());
        assert!(text.contains("hello") && !text.contains("again"));
        // Header of the first record: magic, inode, mode of a folder.
        assert!(text.starts_with("07070100000000000041ed"));
    }
}
