//! The tool `vlan-bridgectl`: puts the plugins and a node's network list in their places and takes them away again.
//! `docs/architecture.md` has the map of this crate.

mod cli;
mod files;
mod install;
mod kubernetes;
mod lists;
mod manifest;
mod node;
mod runtimes;
mod uninstall;

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_skel::tool_main(cli::run)
}
