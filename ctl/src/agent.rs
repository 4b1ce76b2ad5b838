//! `agent`: runs the node agent in the foreground. Its reports are lines on stderr, which systemd and
//! container runtimes keep, and events in Kubernetes.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use vlan_bridge_agent::{Companion, Health, InstalledNetwork, PoolSettings, Settings};

use crate::args::{Agent, Install};
use crate::events::EventQueue;
use crate::observe::Places;
use crate::{install, lists, node, output};

/// Runs until SIGTERM or SIGINT. With `--check`, shows how the node's agent is instead.
pub(crate) fn run(args: &Agent, out: &mut dyn Write) -> Result<()> {
    if args.check {
        writeln!(out, "the agent {}", Health::of_this_node()?)?;
        return Ok(());
    }
    let node = node::name(args.node.as_deref())?;
    let (mut events, poster) = EventQueue::of_node(node.clone());
    let mut companions = vec![("events", poster)];
    companions.extend(installer(args).map(|installer| ("install", installer)));
    let settings = Settings {
        dry_run: args.dry_run,
        sysctl_dir: args.sysctl_dir.clone(),
        companions,
        metrics: args.metrics.clone(),
        pools: Some(pools(args, node)),
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

/// Where the networks with pools are found.
fn pools(args: &Agent, node: String) -> PoolSettings {
    let folders = Places::find(args.conf_dir.as_deref(), None).conf_dirs().to_vec();
    let read = folders.clone();
    PoolSettings {
        node,
        folders,
        read: Box::new(move || read.iter().flat_map(|dir| networks_in(dir)).collect()),
    }
}

/// The networks of the lists in a folder that have their addresses from our IPAM plugin. A folder that
/// cannot be read has none.
fn networks_in(folder: &Path) -> Vec<InstalledNetwork> {
    let files = lists::in_folder(folder).unwrap_or_default();
    let contents = files.iter().filter_map(|file| file.content.as_ref().ok());
    let entries = contents.flat_map(lists::with_our_addresses);
    entries.map(|(name, config)| InstalledNetwork { name, config }).collect()
}
