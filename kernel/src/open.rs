//! Opens the files of a store: never through a symbolic link, and without waiting for the other end of a
//! pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The bytes that one read asks for, unless the file is longer: a page and its end.
const ROOM: usize = 4096 + 1;

/// Options to open a file. If the file is created, only its owner has access.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Opens a file to overwrite it, and creates it if it does not exist.
pub fn to_write(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(false).open(path)
}

/// Opens a directory.
pub fn directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(path)
}

/// The bytes of an open file from `start` on, up to `most` of them. The file's own position stays.
pub fn read_at(file: &File, start: u64, most: u64) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(start).min(most);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// The content of a file, up to `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Room for most files whole. Without it, the first reads are of 32 bytes.
    let mut bytes = Vec::with_capacity(ROOM);
    options().read(true).open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
