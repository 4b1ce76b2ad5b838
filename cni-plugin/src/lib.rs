//! The CNI plugin `vlan-bridge`. `docs/architecture.md` has the map of this crate.

mod agent_lock;
mod apply;
pub mod boundary;
pub mod calls;
mod command;
mod config;
mod deadline;
mod delegate;
pub mod features;
mod gateway;
pub mod guard;
pub mod host_access;
mod inside;
mod lock;
pub mod nat;
mod observe;
pub mod ownership;
mod plan;
mod pod;
pub mod ports;
mod random;
pub mod record;
mod refused;
pub mod repairs;
mod requested_mac;
pub mod trunk;
mod undo;
pub mod watched;

pub use agent_lock::AgentLock;
pub use delegate::is_executable;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::request::Request;
use serde_json::Value;

/// The text for `--help` and for a call without `CNI_COMMAND`.
pub const ABOUT: &str = concat!(
    "vlan-bridge ",
    env!("CARGO_PKG_VERSION"),
    ": CNI plugin that attaches pods to a Linux bridge whose uplink is a VLAN of a bond"
);

/// Runs one verb. The returned document, if any, goes to stdout.
pub fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(|e| {
            CniError::new(code::IO_FAILURE, format!("could not start the async runtime: {e}"))
        })?;
    runtime.block_on(async {
        match request.env.command {
            Command::Add => command::add::run(request).await,
            Command::Del => command::del::run(request).await,
            Command::Check => command::check::run(request).await,
            Command::Gc => command::gc::run(request).await,
            Command::Status => command::status::run(request).await,
            // The skeleton answers VERSION: it knows the versions.
            Command::Version => Ok(None),
        }
    })
}
