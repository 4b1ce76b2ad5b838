//! The tool `vlan-bridgectl`: puts the plugins and a node's network list in their places and takes them away again.
//! `docs/architecture.md` has the map of this crate.

mod bond;
mod cli;
mod definitions;
mod doctor;
mod facts;
mod files;
mod install;
mod kubernetes;
mod lists;
mod manifest;
mod node;
mod observe;
mod probe;
mod runtimes;
mod uninstall;

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_skel::tool_main(cli::run)
}
