//! `cargo xtask build`: the binaries to install.

use crate::command::usage;
use crate::product::{self, Libc};
use anyhow::Result;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask build

Builds the binaries as they are shipped, small and static, and prints where they are. They are linked against
musl where the toolchain has that target or rustup can add it, else against glibc.";

/// Runs the verb.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    match args {
        [] => (),
        other => return Ok(usage(other, USAGE)),
    }
    let folder = product::build(Libc::best())?;
    for name in product::BINARIES {
        println!("{}", folder.join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}
