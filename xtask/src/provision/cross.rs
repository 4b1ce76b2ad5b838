//! A C compiler for another architecture, for the little C that our dependencies have. Only unpacked, and only if it is needed.

use super::{apt, once, unpack};
use std::path::PathBuf;

/// The compiler of Debian's cross packages, or where it would be: who needs none does not miss it.
pub(crate) fn cross_compiler(arch: &str) -> PathBuf {
    let name = format!("cross-{arch}");
    let (compiler, library) = match arch {
        "aarch64" => ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
        _ => ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"),
    };
    let unpacked = once(&name, |dir| unpack(&apt::download_missing(&[compiler, library])?, dir));
    if let Err(error) = &unpacked {
        eprintln!("no C compiler for {arch}: {error:#}");
    }
    unpacked.unwrap_or_default().join(format!("usr/bin/{arch}-linux-gnu-gcc"))
}
