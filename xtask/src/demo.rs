//! `cargo xtask demo`: the product at work, for a person to watch.

use crate::product;
use crate::{guest, provision, suite};
use anyhow::{Result, anyhow};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Use the running kernel: it must have bonding and 802.1q
    #[arg(long, conflicts_with = "what")]
    native: bool,
    /// Instead, on the running kernel
    what: Option<Instead>,
}

/// A demo that any kernel can show.
#[derive(Clone, Debug, clap::ValueEnum)]
enum Instead {
    /// Pods behind a node's address, host ports, a firewall's restart
    Nat,
    /// A full node that borrows the addresses of two idle ones
    Pool,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    match options.what {
        Some(Instead::Nat) => return here("demo_nat"),
        Some(Instead::Pool) => return here("demo_pool"),
        None => {}
    }
    let native = options.native;
    provision::install_programs(!native)?;
    if native {
        provision::ensure_native()?;
    }
    let product = product::ready()?;
    let demo = suite::build(["--bin", "demo"])?;
    let code = if native {
        run(demo, &product)?
    } else {
        let there = "/opt/demo".to_owned();
        let job = guest::Job {
            command: vec![there.clone()],
            environment: Vec::new(),
            programs: vec![(demo, there)],
            deadline: Duration::from_secs(300),
        };
        guest::run(&job, &product, &mut |line| println!("{line}"))?
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn here(demo: &str) -> Result<ExitCode> {
    provision::install_programs(false)?;
    let product = product::ready()?;
    let code = run(suite::build(["--bin", demo])?, &product)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn run(demo: PathBuf, product: &Path) -> Result<i32> {
    let mut command = Command::new(demo);
    provision::tell(&mut command, product)?;
    command.status()?.code().ok_or_else(|| anyhow!("the demo was killed"))
}
