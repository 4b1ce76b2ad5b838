//! Permissions and labels of a file, before it is used.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;
use nix::unistd::{AccessFlags, access};

/// Checks with access(2) that this process can create files in a folder. The kernel considers owner and mode,
/// capabilities, the mount and security modules.
///
/// # Errors
/// Why it cannot.
pub fn may_write(folder: &Path) -> io::Result<()> {
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
}

/// The SELinux label of a file. None if it has no label.
pub fn label(path: &Path) -> Option<String> {
    const NAME: &std::ffi::CStr = c"security.selinux";
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut label = [0_u8; 256];
    // SAFETY: both strings end in NUL, and the kernel writes at most the length of `label` to it.
    let length =
        unsafe { libc::getxattr(path.as_ptr(), NAME.as_ptr(), label.as_mut_ptr().cast(), label.len()) };
    let label = label.get(..usize::try_from(length).ok()?)?;
    let text = String::from_utf8_lossy(label);
    Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty())
}
