//! `agent`: runs the node agent in the foreground. Its reports are lines on stderr, which systemd and
//! container runtimes keep.

use anyhow::Result;
use vlan_bridge_agent::Settings;

use crate::args::Agent;
use crate::output;

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &Agent) -> Result<()> {
    let settings = Settings { dry_run: args.dry_run };
    Ok(vlan_bridge_agent::run(settings, &mut |report| {
        output::report(&format!("vlan-bridgectl agent: {report}"))
    })?)
}
