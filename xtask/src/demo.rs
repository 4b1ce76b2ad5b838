//! `cargo xtask demo`: the product at work, for a person to watch.

use crate::command::usage;
use crate::product;
use crate::{guest, provision, suite};
use anyhow::{Result, anyhow};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const USAGE: &str = "\
Usage: cargo xtask demo [--native | nat]

Brings up two switches, a router and two nodes with bonded NICs in a guest kernel, attaches pods on both nodes
through libcni, pings, shows the tagged frames at a switch, and lets the agent repair a node and announce a pod after
a failover. Installs and builds what it needs first.

  --native   use the running kernel: it must have bonding and 802.1q
  nat        instead, on the running kernel: pods behind a node's address, host ports, a firewall's restart";

/// Runs the verb.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let native = match args {
        [] => false,
        [flag] if flag == "--native" => true,
        [what] if what == "nat" => return here("demo_nat"),
        other => return Ok(usage(other, USAGE)),
    };
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

/// A demo that any kernel can show.
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
