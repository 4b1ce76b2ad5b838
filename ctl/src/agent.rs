//! `agent`: runs the node agent in the foreground. Its reports are lines on stderr, which systemd and
//! container runtimes keep, and events in Kubernetes.

use std::io::{self, Write};

use anyhow::Result;
use vlan_bridge_agent::{Companion, Health, Settings};

use crate::args::{Agent, Install};
use crate::events::EventQueue;
use crate::{install, node, output};

/// Runs until SIGTERM or SIGINT. With `--check`, shows how the node's agent is instead.
pub(crate) fn run(args: &Agent, out: &mut dyn Write) -> Result<()> {
    if args.check {
        writeln!(out, "the agent {}", Health::of_this_node()?)?;
        return Ok(());
    }
    let (mut events, poster) = EventQueue::of_node(node::name(args.node.as_deref())?);
    let mut companions = vec![("events", poster)];
    companions.extend(installer(args).map(|installer| ("install", installer)));
    let settings = Settings {
        dry_run: args.dry_run,
        sysctl_dir: args.sysctl_dir.clone(),
        companions,
        metrics: args.metrics.clone(),
    };
    Ok(vlan_bridge_agent::run(settings, &mut |report| {
        output::report(&format!("vlan-bridgectl agent: {report}"));
        events.add(report);
    })?)
}

/// What `install --watch` does.
fn installer(args: &Agent) -> Option<Companion> {
    if args.network.is_empty() {
        return None;
    }
    let (network, node) = (args.network.clone(), args.node.clone());
    let install = Install { network, node, watch: true, ..Install::default() };
    Some(Box::new(move || {
        // The main thread has stdout for itself.
        if let Err(error) = install::run(&install, &mut io::stderr()) {
            output::report(&format!("vlan-bridgectl: {error:#}: network lists are no longer installed"));
        }
    }))
}
