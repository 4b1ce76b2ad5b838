//! The configuration of a call, checked whole before anything is touched.

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use cni_conf::request::Request;

/// Parses it, and logs its warnings. Those of our IPAM plugin are logged by that plugin.
pub fn checked(request: &Request) -> Result<Network, CniError> {
    let (network, warnings) = Network::parse(request)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    Ok(network)
}
