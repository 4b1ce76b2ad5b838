//! The CNI IPAM plugin `vlan-bridge-ipam`: hands out addresses of this node's slice of a subnet.
//!
//! One file a verb; `allocate` says which address comes next, without I/O; `store` keeps who holds what, in
//! host-local's directory layout, so that a node can change plugins with containers running; `detect` looks
//! for an address on the network before it is given.
//! The container's network namespace is never opened: the caller configures the interface.

use std::process::ExitCode;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::CniError;
use cni_conf::request::Request;
use serde_json::Value;

mod add;
mod allocate;
mod check;
mod del;
mod detect;
mod gc;
pub mod operator;
mod resolv_conf;
mod status;
pub mod store;

/// The plugin's name, as `ipam.type` and the file say it.
pub const NAME: &str = cni_conf::ipam_plugin::IpamPlugin::OURS;

/// The whole of the plugin's `main`, for a process of its own.
pub fn main() -> ExitCode {
    if !end_with_plugin() {
        return ExitCode::FAILURE;
    }
    let about = concat!("vlan-bridge-ipam ", env!("CARGO_PKG_VERSION"));
    cni_skel::plugin_main_with_tool(about, run, operator::run)
}

/// Does what one request asks for. `Some` for ADD only.
///
/// # Errors
/// As each verb says.
pub fn run(request: &Request) -> Result<Option<Value>, CniError> {
    match request.env.command {
        Command::Add => add::add(request).map(Some),
        Command::Del => del::del(request).map(|()| None),
        Command::Check => check::check(request).map(|()| None),
        Command::Gc => gc::gc(request).map(|()| None),
        Command::Status => status::status(request).map(|()| None),
        // The caller answers VERSION; there is nothing of ours to say.
        Command::Version => Ok(None),
    }
}

/// The variable in which `vlan-bridge` tells its process id to the IPAM plugin that it starts.
const STARTED_BY: &str = "VLAN_BRIDGE_PID";

/// Where `vlan-bridge` has started this process: ends it when `vlan-bridge` is killed. False if that has
/// happened already.
fn end_with_plugin() -> bool {
    let parent = std::env::var(STARTED_BY).ok().and_then(|pid| pid.parse().ok());
    parent.is_none_or(kernel::die_with_parent)
}

#[cfg(test)]
mod tests;
