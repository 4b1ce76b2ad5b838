//! The configuration of a call, checked completely before anything is changed.

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use cni_conf::request::Request;

/// Parses the configuration and logs its warnings. `vlan-bridge-ipam` logs its own warnings.
pub fn checked(request: &Request) -> Result<Network, CniError> {
    let (network, warnings) = Network::parse(request)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    Ok(network)
}
