//! `cargo xtask build`: the binaries to install.

use crate::product::{self, Libc};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the verb.
pub(crate) fn main() -> Result<ExitCode> {
    let folder = product::build(Libc::best())?;
    for name in product::BINARIES {
        println!("{}", folder.join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}
