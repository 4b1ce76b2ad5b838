//! `cargo xtask deny`: checks the crates that we depend on. `deny.toml` has the rules.

use crate::command::{output, run, shown};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// A version that the Rust of `rust-version` can build.
const VERSION: &str = "0.20.2";

/// The message of cargo-deny if the database cannot be fetched.
const UNREACHABLE: &str = "failed to fetch advisory database";

/// Runs the verb.
pub(crate) fn main(with_advisories: bool) -> Result<ExitCode> {
    check()?;
    if with_advisories {
        check_advisories()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks everything that needs no database.
pub(crate) fn check() -> Result<()> {
    run(command()?.args(["bans", "licenses", "sources"]))
}

/// Checks that no crate has a known vulnerability.
pub(crate) fn check_advisories() -> Result<()> {
    let mut command = command()?;
    command.arg("advisories");
    let name = shown(&command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{name}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("{said}");
    if said.contains(UNREACHABLE) {
        bail!("no crate was checked for vulnerabilities: the host of the advisory database is unreachable");
    }
    ensure!(output.status.success(), "`{name}` failed: {}", output.status);
    Ok(())
}

fn command() -> Result<Command> {
    let mut command = Command::new(program()?);
    command.current_dir(workspace::root()).args(["--locked", "check", "--hide-inclusion-graph"]);
    Ok(command)
}

/// cargo-deny of our version, installed if there is none. To build it without optimisation takes a third of
/// the time, and the checks take two seconds either way.
fn program() -> Result<PathBuf> {
    let root = workspace::target().join("tools");
    let program = root.join("bin/cargo-deny");
    let is_ours = || {
        output(Command::new(&program).arg("--version"))
            .is_ok_and(|answer| answer.split_whitespace().last() == Some(VERSION))
    };
    if !is_ours() {
        eprintln!("installing cargo-deny {VERSION} ...");
        let mut install = crate::command::cargo();
        install.args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--force",
            "--version",
            VERSION,
            "--root",
        ]);
        run(install.arg(&root).arg("cargo-deny").env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
        ensure!(is_ours(), "cargo-deny was installed, but not as {}", program.display());
    }
    Ok(program)
}
