//! Counters that processes share: a file of fixed size, mapped shared into each of them (mmap(2)).
//!
//! A mapped page that its file has no longer, because somebody truncated it, ends the process with SIGBUS. So
//! a file is mapped only if it has the size of all counters and only this user may write it, and only for as
//! long as it takes to count. The caller keeps it in a folder that only this user may enter. A reader does
//! not map it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use cni_skel::draft;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::geteuid;

use crate::open;

/// The size of the file: a page.
const SIZE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Mapped counters.
#[derive(Debug)]
pub struct Counters {
    words: NonNull<AtomicU64>,
}

// SAFETY: the mapping belongs to the value, and all threads access it with atomic operations only.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    /// How many counters a file has.
    pub const COUNT: usize = SIZE.get() / size_of::<AtomicU64>();

    /// Maps the counters of a file.
    ///
    /// # Errors
    /// There is no such file, or it is not what [`Counters::make`] makes.
    pub fn open(path: &Path) -> io::Result<Counters> {
        let file = open::options().read(true).write(true).open(path)?;
        check(&file)?;
        // SAFETY: a new mapping, at an address that the kernel chooses. The file stays mapped without its
        // descriptor.
        let page = unsafe {
            mmap(None, SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0)?
        };
        Ok(Counters { words: page.cast() })
    }

    /// Makes a file whose counters are 0. A user of `path` sees the whole old file or the whole new one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn make(path: &Path, draft: &Path) -> io::Result<()> {
        let make = |draft: &Path| {
            // A hole would need memory when a plugin counts, and without any the kernel would send SIGBUS.
            draft::create(draft, OpenOptions::new().mode(0o600))?.write_all(&[0; SIZE.get()])
        };
        draft::replace(path, draft, make, std::convert::identity)
    }

    /// The values of the counters of a file.
    ///
    /// # Errors
    /// As for [`Counters::open`].
    pub fn read(path: &Path) -> io::Result<Vec<u64>> {
        let mut file = open::options().read(true).open(path)?;
        check(&file)?;
        let mut bytes = [0; SIZE.get()];
        file.read_exact(&mut bytes)?;
        let (words, _) = bytes.as_chunks();
        Ok(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    /// Adds to a counter. An index out of range counts nothing.
    pub fn add(&self, index: usize, by: u64) {
        if let Some(word) = self.words().get(index) {
            word.fetch_add(by, Ordering::Relaxed);
        }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is readable, writable, aligned to a page, and has so many words as long as the
        // value lives. Every process accesses them with atomic operations only.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), Counters::COUNT) }
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows it any more.
        let _ = unsafe { munmap(self.words.cast(), SIZE.get()) };
    }
}

fn check(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    let is_ours = found.is_file()
        && found.size() == SIZE.get() as u64
        && found.uid() == geteuid().as_raw()
        && found.mode() & 0o077 == 0;
    if is_ours { Ok(()) } else { Err(io::Error::other("not a file of counters")) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("counters-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn all_users_of_a_file_count_together() {
        let folder = folder("together");
        let path = folder.join("calls");
        Counters::make(&path, &folder.join(".calls")).unwrap();
        let [one, other] = [(); 2].map(|()| Counters::open(&path).unwrap());
        std::thread::scope(|scope| {
            for counters in [&one, &other] {
                scope.spawn(move || (0..1000).for_each(|_| counters.add(7, 2)));
            }
        });
        let last = Counters::COUNT - 1;
        other.add(last, 5);
        other.add(Counters::COUNT, 5);
        let counted = Counters::read(&path).unwrap();
        assert_eq!([counted[7], counted[last], counted.iter().sum()], [4000, 5, 4005]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_file_of_counters_is_not_mapped() {
        let folder = folder("foreign");
        let path = folder.join("calls");
        let refused = || Counters::open(&path).unwrap_err().to_string();
        for content in [vec![], vec![0; 4095], vec![0; 4097]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(refused(), "not a file of counters");
            assert!(Counters::read(&path).is_err());
        }
        fs::write(&path, [0; 4096]).unwrap();
        assert!(Counters::open(&path).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
        assert_eq!(refused(), "not a file of counters");
        let link = folder.join("link");
        symlink(&path, &link).unwrap();
        assert!(Counters::open(&link).is_err());
        assert!(Counters::open(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
