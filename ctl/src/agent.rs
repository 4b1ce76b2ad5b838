//! `agent`: runs the node agent in the foreground. Its reports are lines on stderr, which systemd and
//! container runtimes keep.

use std::io::Write;

use anyhow::Result;
use vlan_bridge_agent::{Health, Settings};

use crate::args::Agent;
use crate::output;

/// Runs until SIGTERM or SIGINT. With `--check`, shows how the node's agent is instead.
pub(crate) fn run(args: &Agent, out: &mut dyn Write) -> Result<()> {
    if args.check {
        writeln!(out, "the agent {}", Health::of_this_node()?)?;
        return Ok(());
    }
    let settings = Settings { dry_run: args.dry_run, sysctl_dir: args.sysctl_dir.clone() };
    Ok(vlan_bridge_agent::run(settings, &mut |report| {
        output::report(&format!("vlan-bridgectl agent: {report}"))
    })?)
}
