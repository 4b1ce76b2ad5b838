//! `cargo xtask vm`: a command, or a shell, in a guest kernel.

use crate::{guest, product, provision};
use anyhow::Result;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
Usage: cargo xtask vm [--timeout SECONDS] [-- COMMAND...]

Boots Debian's cloud kernel under emulation, with bonding, 802.1q, bridges and nftables, and runs COMMAND in
it; without COMMAND, a shell. The exit code is the command's. The product's binaries are in $VLAN_BRIDGE_BIN,
the reference plugins in $CNI_PEERS, the libcni client is $CNI_CLIENT. Nothing outlives the guest.

  --timeout SECONDS   give up after that long (default 600)";

/// Runs the verb.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let mut deadline = Duration::from_secs(600);
    let mut rest = args.iter();
    let mut command = Vec::new();
    while let Some(arg) = rest.next() {
        match (arg.as_str(), arg.as_str() == "--timeout") {
            ("--help" | "-h", _) => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            ("--", _) => command = rest.by_ref().cloned().collect(),
            (_, true) => match rest.next().and_then(|text| text.parse().ok()) {
                Some(seconds) => deadline = Duration::from_secs(seconds),
                None => return Ok(misused("--timeout wants a number of seconds")),
            },
            (unknown, _) => return Ok(misused(&format!("unknown argument {unknown:?}"))),
        }
    }
    if command.is_empty() && !std::io::stdin().is_terminal() {
        return Ok(misused("a shell wants a terminal: give a COMMAND"));
    }
    provision::install_programs(true)?;
    let product = product::ready()?;
    let job = guest::Job { command, environment: Vec::new(), programs: Vec::new(), deadline };
    let code = guest::run(&job, &product, &mut |line| println!("{line}"))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn misused(why: &str) -> ExitCode {
    eprintln!("{why}\n\n{USAGE}");
    ExitCode::from(2)
}
