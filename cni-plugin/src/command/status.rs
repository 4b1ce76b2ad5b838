//! STATUS: could an ADD work now? Runtimes ask every few seconds, and a no makes the whole node NotReady.

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::request::Request;
use serde_json::Value;

use crate::delegate::Delegate;
use crate::net::Conn;
use crate::plan::status::status;
use crate::{apply, config};

/// Nothing if an ADD can work; 51 if the uplink is down, so that attached pods are cut off too; 50 for any other reason;
/// an IPAM plugin's own code where it says no.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let network = config::checked(request)?;
    let node = Conn::open()?;
    status(&network, &apply::look(&node, &network).await?.seen)?;
    if let Some(name) = &network.ipam {
        let delegate = Delegate::find(name, request).map_err(|e| e.with_code(code::PLUGIN_NOT_AVAILABLE))?;
        delegate.call(Command::Status).await?;
    }
    Ok(None)
}
