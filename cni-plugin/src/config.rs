//! The configuration of a call, checked whole before anything is touched.

use cni_conf::cni::error::CniError;
use cni_conf::ipam::IpamConfig;
use cni_conf::network::{Network, OUR_IPAM};
use cni_conf::request::Request;

/// Parses our own keys, and those of our own IPAM plugin: a gateway outside its subnet must not be found out
/// when the bridge is made already. Logs what is odd.
pub fn checked(request: &Request) -> Result<Network, CniError> {
    let (network, warnings) = Network::parse(request)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    if network.ipam.as_deref() == Some(OUR_IPAM) {
        // Its own warnings are logged by the IPAM plugin itself.
        let ipam = IpamConfig::parse(&request.config)?;
        ipam.check_version(request.version)?;
        network.check_addresses(&ipam)?;
        request.requested_ips()?;
    }
    Ok(network)
}
