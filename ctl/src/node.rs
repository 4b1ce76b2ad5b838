//! The node's name and interfaces.

use anyhow::{Context, Result};
use kernel::link::Link;
use kernel::{self, Conn};
use tokio::runtime::{Builder, Runtime};

/// This node's name: the given one, else `NODE_NAME` (which a DaemonSet sets), else the hostname.
pub(crate) fn name(given: Option<&str>) -> Result<String> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    if let Some(name) = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty()) {
        return Ok(name);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the hostname")?;
    Ok(host.trim().to_owned())
}

/// A tokio runtime for netlink requests.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build().context("cannot start the async runtime")
}

/// Every interface of the node.
pub(crate) async fn links(conn: &Conn) -> Result<Vec<Link>> {
    Ok(kernel::link::all(conn).await?)
}
