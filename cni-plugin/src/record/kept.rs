//! What this process has read of records. A pass over the node needs each record several times, and the next
//! pass needs the same ones: a file that has not changed is not read again.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static KEPT: Mutex<BTreeMap<OsString, Kept>> = Mutex::new(BTreeMap::new());

/// A record as a file had it.
struct Kept {
    stamp: FileStamp,
    record: Arc<dyn Any + Send + Sync>,
    /// It was used since the last [`forget_unused`].
    is_used: bool,
}

/// Differs between a file and the one that replaces it. A record is renamed into place, so it has another
/// inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    pub(super) fn of(file: &Metadata) -> FileStamp {
        FileStamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The record of a file that has not changed since.
pub(super) fn get<R: Send + Sync + 'static>(path: &Path, stamp: FileStamp) -> Option<Arc<R>> {
    let mut all = lock();
    let kept = all.get_mut(path.as_os_str()).filter(|kept| kept.stamp == stamp)?;
    kept.is_used = true;
    Arc::clone(&kept.record).downcast().ok()
}

/// Keeps the record of a file that had this stamp before it was read. If the file was replaced in between,
/// the stamp fits no longer.
pub(super) fn put<R: Send + Sync + 'static>(path: &Path, stamp: FileStamp, record: &Arc<R>) {
    let record: Arc<dyn Any + Send + Sync> = Arc::<R>::clone(record);
    lock().insert(path.as_os_str().to_owned(), Kept { stamp, record, is_used: true });
}

/// Forgets the records that were not used since the last call: those of pods that are gone.
pub(crate) fn forget_unused() {
    lock().retain(|_, kept| std::mem::take(&mut kept.is_used));
}

fn lock() -> MutexGuard<'static, BTreeMap<OsString, Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}
