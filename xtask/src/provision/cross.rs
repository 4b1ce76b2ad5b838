//! A C compiler for another architecture, for the little C that our dependencies have. Only unpacked, and
//! only if it is needed.

use super::{apt, once, unpack};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The environment variables that make a build use the compiler of Debian's cross packages.
pub(crate) fn cross_compiler(arch: &str) -> Result<[(String, PathBuf); 2]> {
    let (compiler, library) = match arch {
        "aarch64" => ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
        "x86_64" => ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"),
        other => bail!("no C compiler for {other} is known"),
    };
    let dir =
        once(&format!("cross-{arch}"), |dir| unpack(&apt::download_missing(&[compiler, library])?, dir))?;
    Ok([
        (format!("CC_{arch}_unknown_linux_musl"), dir.join(format!("usr/bin/{arch}-linux-gnu-gcc"))),
        // The loader does not look in the folder of its libraries.
        ("LD_LIBRARY_PATH".into(), dir.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))),
    ])
}
