//! A network namespace, without opening it: what a path leads to, and whether it still does.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The mount namespace of this process.
const OWN_MOUNTS: &str = "/proc/self/ns/mnt";

/// A network namespace as ADD saw it, without opening it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Netns {
    /// `CNI_NETNS`
    pub path: String,
    /// Device and inode of the file at the path.
    pub id: (u64, u64),
    /// Inode of the mount namespace in which ADD ran. Namespace inodes are reused, so this alone proves
    /// nothing.
    pub mount_namespace: u64,
    /// Device and inode of the directory that the path leads through: /proc, or the parent directory.
    pub anchor: (u64, u64),
}

impl Netns {
    /// Records a namespace. `None` if the path leads to nothing: then it is never possible to tell that the
    /// namespace is gone.
    pub(crate) fn see(path: &str) -> Option<Netns> {
        let found = fs::metadata(path).ok()?;
        Some(Netns {
            path: path.to_owned(),
            id: (found.dev(), found.ino()),
            mount_namespace: fs::metadata(OWN_MOUNTS).ok()?.ino(),
            anchor: anchor(path)?,
        })
    }

    /// Whether the path still leads to the namespace. `None` if this is unknown: in another mount namespace
    /// the same path may lead elsewhere, and a plain file in the place of a namespace may have the namespace
    /// mounted on it there.
    pub(crate) fn is_alive(&self) -> Option<bool> {
        if fs::metadata(OWN_MOUNTS).ok()?.ino() != self.mount_namespace || anchor(&self.path)? != self.anchor
        {
            return None;
        }
        match fs::metadata(&self.path) {
            Ok(found) if found.dev() == self.id.0 => Some(found.ino() == self.id.1),
            Ok(_) => None,
            Err(error) => (error.kind() == ErrorKind::NotFound).then_some(false),
        }
    }
}

/// The directory that shows whether a path is in the same tree as before. A process has its own in /proc.
fn anchor(path: &str) -> Option<(u64, u64)> {
    let dir = if path.starts_with("/proc/") { Path::new("/proc") } else { Path::new(path).parent()? };
    let found = fs::metadata(dir).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alive_gone_or_unknown() {
        let dir = std::env::temp_dir().join(format!("ipam-netns-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let (path, other) = (dir.join("a"), dir.join("b"));
        fs::write(&path, b"").unwrap();
        fs::write(&other, b"").unwrap();
        let path = path.to_str().unwrap();
        let seen = Netns::see(path).unwrap();
        assert_eq!(seen.is_alive(), Some(true));
        assert_eq!(Netns { mount_namespace: 1, ..seen.clone() }.is_alive(), None);
        assert_eq!(Netns { anchor: (0, 0), ..seen.clone() }.is_alive(), None);
        assert_eq!(Netns { id: (seen.id.0 + 1, seen.id.1), ..seen.clone() }.is_alive(), None);
        fs::rename(other, path).unwrap();
        assert_eq!(seen.is_alive(), Some(false));
        fs::remove_file(path).unwrap();
        assert_eq!(seen.is_alive(), Some(false));
        assert_eq!(Netns::see(path), None);
        fs::remove_dir(&dir).unwrap();
        assert_eq!(seen.is_alive(), None);
        let own = Netns::see("/proc/self/ns/net").unwrap();
        assert_eq!(own.is_alive(), Some(true));
        assert_eq!(Netns { path: "/proc/999999999/ns/net".into(), ..own }.is_alive(), Some(false));
    }
}
