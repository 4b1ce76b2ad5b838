//! The addresses of the networks that have pods on this node, by the records of the pods. So the agent need
//! not know where a runtime has its network lists, which a container or systemd may hide from it.

use cni_conf::cni::error::CniError;
use vlan_bridge::ports;
use vlan_bridge_ipam::store::Usage;
use vlan_bridge_ipam::usage;

/// The addresses of a network.
#[derive(Debug)]
pub(crate) struct NetworkUsage {
    pub(crate) network: String,
    /// The usage of each range of each set, or why the leases cannot be read.
    pub(crate) sets: Result<Vec<Vec<Usage>>, CniError>,
}

impl NetworkUsage {
    /// Reads the leases. May wait for their locks.
    pub(crate) fn of_this_node() -> Result<Vec<NetworkUsage>, CniError> {
        let networks = ports::recorded_addresses()?.into_iter();
        let read = networks.map(|(network, config)| {
            let sets = usage::of_network(&config, &network);
            NetworkUsage { network, sets }
        });
        Ok(read.collect())
    }
}
