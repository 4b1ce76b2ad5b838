//! `cargo xtask vm`: a command, or a shell, in a guest kernel.

use crate::{guest, product, provision};
use anyhow::{Result, bail};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// What to run in the guest.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Give up after this long
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// The command [default: a shell]
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs the verb.
pub(crate) fn main(options: Options) -> Result<ExitCode> {
    if options.command.is_empty() && !std::io::stdin().is_terminal() {
        bail!("a shell wants a terminal: give a COMMAND, after --");
    }
    provision::install_programs(true)?;
    let product = product::ready()?;
    let job = guest::Job {
        command: options.command,
        environment: Vec::new(),
        programs: Vec::new(),
        deadline: Duration::from_secs(options.timeout),
    };
    let code = guest::run(&job, &product, &mut |line| println!("{line}"))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
