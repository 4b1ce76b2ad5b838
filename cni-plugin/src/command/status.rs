//! STATUS: could an ADD work now? Runtimes ask every few seconds. An error makes the whole node NotReady.

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::request::Request;
use kernel::Conn;
use serde_json::Value;

use crate::delegate::Delegate;
use crate::guard::GuardTable;
use crate::nat::Nat;
use crate::plan::{status, uplink};
use crate::{config, observe};

/// Succeeds if an ADD can work. Code 51: the uplink is down, so attached pods are cut off too. Code 50: any
/// other reason. An IPAM plugin's own code is passed on. Takes no locks and changes nothing.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let unavailable = |e: CniError| e.with_code(code::PLUGIN_NOT_AVAILABLE);
    let network = config::checked(request).map_err(unavailable)?;
    let node = Conn::open().map_err(CniError::from).map_err(unavailable)?;
    if let Some(nat) = Nat::probe_needed_by(&network).map_err(unavailable)? {
        nat.probe().map_err(unavailable)?;
    }
    if network.guard.is_some() {
        GuardTable::open().and_then(|guard| guard.probe()).map_err(unavailable)?;
    }
    let seen = observe::uplink(&node, &network).await.map_err(CniError::from).map_err(unavailable)?;
    status::uplink_carries(&network, &seen)?;
    if !uplink::plan(&network, &seen).is_ok_and(|plan| plan.steps.is_empty()) {
        // ADD would have to create something first: check whether that would be refused.
        let seen = observe::settled(&node, &network).await.map_err(CniError::from).map_err(unavailable)?;
        uplink::plan(&network, &seen).map_err(unavailable)?;
    }
    if let Some(name) = &network.ipam {
        let delegate = Delegate::find(name, request).map_err(unavailable)?;
        delegate.call(Command::Status)?;
    }
    Ok(None)
}
