//! `cargo xtask fuzz`: libFuzzer over the targets of `fuzz/`.

use crate::command::{cargo, output, run};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The targets: programs of `fuzz/libfuzzer`, folders of `fuzz/corpus`.
const TARGETS: [&str; 5] = ["announcements", "configuration", "frames", "pool", "store"];
const SECONDS: u32 = 60;
const MEMORY: &str = "/dev/shm";

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The target to fuzz [default: each in turn]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
    /// How long to fuzz a target
    #[arg(long, value_name = "N", default_value_t = SECONDS)]
    seconds: u32,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let targets = options.target.as_deref().map_or(TARGETS.to_vec(), |target| vec![target]);
    let program = cargo_fuzz()?;
    let mut failed = Vec::new();
    for target in targets {
        if let Err(error) = fuzz(&program, target, options.seconds) {
            eprintln!("cargo xtask fuzz: {error:#}");
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("something was found in {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one target for so many seconds. Its own files are below the target folder.
fn fuzz(program: &Path, target: &str, seconds: u32) -> Result<()> {
    let root = workspace::root();
    let own = workspace::target().join("fuzz");
    let (grown, artifacts) = (own.join("corpus").join(target), own.join("artifacts").join(target));
    for folder in [&grown, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(program);
    command.current_dir(&root).args(["fuzz", "run", "--fuzz-dir", "fuzz/libfuzzer"]);
    // Sanitizers need a nightly toolchain. Nearly all of this is safe code, in which only panics can be
    // found.
    command.args(["--sanitizer", "none", "--target-dir"]).arg(own.join("build")).arg(target);
    command.arg(&grown).arg(root.join("fuzz/corpus").join(target));
    command.args(["--", "-timeout=10", "-rss_limit_mb=1024", "-max_len=8192"]);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.env("RUSTC_BOOTSTRAP", "1");
    // Each input gets a new store, in memory if possible.
    if Path::new(MEMORY).is_dir() {
        command.env("TMPDIR", MEMORY);
    }
    run(&mut command)
}

/// cargo-fuzz, installed if there is none.
fn cargo_fuzz() -> Result<PathBuf> {
    if output(Command::new("cargo-fuzz").arg("--version")).is_ok() {
        return Ok("cargo-fuzz".into());
    }
    let root = workspace::target().join("fuzz/cargo-fuzz");
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        run(cargo().args(["install", "--quiet", "cargo-fuzz", "--root"]).arg(&root))?;
    }
    ensure!(program.exists(), "cargo-fuzz was installed, but not as {}", program.display());
    Ok(program)
}
