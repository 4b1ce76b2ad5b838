//! The tool `vlan-bridgectl`: installs the plugins and a node's network list, uninstalls them, and shows
//! the state of the node. `docs/architecture.md` has the map of this crate.

mod agent;
mod args;
mod bond;
mod cli;
mod definitions;
mod denial;
mod doctor;
mod events;
mod facts;
mod files;
mod install;
mod kubernetes;
mod lists;
mod lock;
mod manifest;
mod neighbours;
mod node;
mod observe;
mod output;
mod plugin;
mod pods;
mod pool;
mod repair;
mod runtimes;
mod status;
mod topology;
mod uninstall;

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_skel::tool_main(cli::run)
}
