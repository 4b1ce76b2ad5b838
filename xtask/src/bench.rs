//! `cargo xtask bench`: our plugins' speed beside the reference's.

use crate::command::usage;
use crate::{product, provision, suite};
use anyhow::{Result, anyhow};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
Usage: cargo xtask bench [ipam | paths]

Times ADD and DEL of our plugins and of the packaged reference plugins on the running kernel, run by run in
turn, in namespaces of its own, and prints medians and ratios. Takes about a minute.

  ipam    the IPAM plugins alone, with 0 to 60,000 addresses held
  paths   NAT mode with two host ports a pod, with 0 and 250 pods there, and a connection to a host port";

/// Runs the verb.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let bench = match args {
        [] => "bench",
        [what] if what == "ipam" => "bench_ipam",
        [what] if what == "paths" => "bench_paths",
        other => return Ok(usage(other, USAGE)),
    };
    provision::install_programs(false)?;
    let product = product::ready()?;
    let mut command = Command::new(suite::build(["--bin", bench])?);
    provision::tell(&mut command, &product)?;
    println!("reference plugins: Debian's containernetworking-plugins {}", provision::peers_version()?);
    let code = command.status()?.code().ok_or_else(|| anyhow!("the bench was killed"))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
