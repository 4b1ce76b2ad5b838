//! The CNI IPAM plugin `vlan-bridge-ipam`: hands out addresses of this node's slice of a subnet.
//!
//! One file a verb; `allocate` says which address comes next, without I/O; `store` keeps who holds what, in
//! host-local's directory layout, so that a node can change plugins with containers running. The container's
//! network namespace is never opened: the caller configures the interface.

use cni_conf::cni::env::Command;
use cni_conf::cni::error::CniError;
use cni_conf::request::Request;
use serde_json::Value;

mod add;
mod allocate;
mod check;
mod del;
mod gc;
pub mod operator;
mod resolv_conf;
mod status;
pub mod store;

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

#[cfg(test)]
mod tests;
