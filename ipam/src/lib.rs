//! The CNI IPAM plugin `vlan-bridge-ipam`: assigns addresses from this node's slice of a subnet.
//!
//! - Each verb has its own module.
//! - `allocate` chooses the next address, without I/O.
//! - `store` keeps the leases in host-local's directory layout, so a node can change plugins while containers
//!   run.
//! - `detect` probes for an address on the network before it is assigned.
//!
//! The plugin never opens the container's network namespace: the caller configures the interface.

use std::process::ExitCode;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::CniError;
use cni_conf::request::Request;
use serde_json::Value;

mod add;
pub mod ahead;
mod allocate;
mod check;
mod choose;
mod del;
mod detect;
mod gc;
pub mod operator;
mod patience;
pub mod poke;
mod resolv_conf;
pub mod shares;
mod status;
pub mod store;
pub mod usage;

/// The plugin's name.
pub const NAME: &str = cni_conf::ipam_plugin::IpamPlugin::OURS;

/// The plugin's `main`, for a process of its own.
pub fn main() -> ExitCode {
    if !end_with_plugin() {
        return ExitCode::FAILURE;
    }
    let about = concat!("vlan-bridge-ipam ", env!("CARGO_PKG_VERSION"));
    cni_skel::plugin_main_with_tool(about, run, operator::run)
}

/// Executes one request. Returns `Some` only for ADD.
///
/// # Errors
/// See each verb.
pub fn run(request: &Request) -> Result<Option<Value>, CniError> {
    match request.env.command {
        Command::Add => add::add(request).map(Some),
        Command::Del => del::del(request).map(|()| None),
        Command::Check => check::check(request).map(|()| None),
        Command::Gc => gc::gc(request).map(|()| None),
        Command::Status => status::status(request).map(|()| None),
        // The caller answers VERSION.
        Command::Version => Ok(None),
    }
}

/// The environment variable in which `vlan-bridge` passes its process id to the IPAM plugin that it starts.
pub const STARTED_BY: &str = "VLAN_BRIDGE_PID";

/// If `vlan-bridge` has started this process, the kernel ends it when `vlan-bridge` is killed. False if
/// `vlan-bridge` has ended already.
fn end_with_plugin() -> bool {
    let parent = std::env::var(STARTED_BY).ok().and_then(|pid| pid.parse().ok());
    parent.is_none_or(kernel::die_with_parent)
}

#[cfg(test)]
mod tests;
