//! The oldest Rust that builds the project, `rust-version` of the workspace.

use crate::command::{output, run};
use crate::workspace;
use anyhow::Result;
use std::process::Command;

/// Cargo's own reading of the manifest.
pub(crate) const RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// The packages to check: the shipped programs and this one.
const PACKAGES: [&str; 3] = ["vlan-bridge", "vlan-bridgectl", "xtask"];

/// Checks these packages with that Rust. False if rustup is not there or cannot add it.
pub(crate) fn check() -> Result<bool> {
    let is_there = || output(Command::new("rustup").args(["run", RUST, "cargo", "--version"])).is_ok();
    if !is_there() {
        let mut install = Command::new("rustup");
        let _ = output(install.args(["toolchain", "install", RUST, "--profile", "minimal"]));
    }
    if !is_there() {
        return Ok(false);
    }
    let mut command = Command::new("rustup");
    command.args(["run", RUST, "cargo", "check", "--quiet", "--locked"]).current_dir(workspace::root());
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    // The newer Rust cannot reuse its build.
    run(command.env("CARGO_TARGET_DIR", workspace::target().join("msrv"))).map(|()| true)
}
