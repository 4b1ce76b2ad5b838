//! The interfaces of this node that its attachments need, by the records: what an observer has to watch.

use std::collections::BTreeSet;

use cni_conf::cni::error::CniError;
use kernel::link::Link;
use kernel::{Conn, link};

use crate::ports::{self, RecordedNetwork, RecordedPort};

/// The bridges of the node's attachments, with their ports.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The bridges that exist.
    pub bridges: Vec<WatchedBridge>,
    /// The networks that have an uplink.
    pub networks: Vec<RecordedNetwork>,
    /// Names of bridges and of the node ends of veths, whether they exist or not.
    pub names: BTreeSet<String>,
}

/// A bridge with pods.
#[derive(Clone, Debug)]
pub struct WatchedBridge {
    /// The bridge.
    pub bridge: Link,
    /// The pods' ports, by the records.
    pub pods: Vec<RecordedPort>,
    /// Its ports that networks of the records name as uplinks.
    pub uplinks: Vec<WatchedUplink>,
}

/// A port of a bridge that leads to other machines.
#[derive(Clone, Debug)]
pub struct WatchedUplink {
    /// The port.
    pub port: Link,
    /// The interface below it, if the port is a VLAN sub-interface: a bond, or a NIC.
    pub parent: Option<Link>,
}

impl Watched {
    /// Looks the bridges of all records up.
    pub async fn of_this_node(node: &Conn) -> Result<Watched, CniError> {
        let (bridges, networks) = ports::recorded_with_networks()?;
        let mut watched = Watched::default();
        for (name, pods) in bridges {
            watched.names.extend(pods.iter().map(|pod| pod.veth.clone()));
            if let Some(bridge) = link::by_name(node, &name).await? {
                let mut uplinks = Vec::new();
                let of_bridge = networks.iter().filter(|network| network.bridge == name);
                for uplink in of_bridge.map(|network| &network.uplink).collect::<BTreeSet<_>>() {
                    let port = link::by_name(node, uplink).await?;
                    let Some(port) = port.filter(|port| port.master == Some(bridge.index)) else { continue };
                    let parent = match port.parent.filter(|_| port.parent_namespace.is_none()) {
                        Some(index) => link::by_index(node, index).await?,
                        None => None,
                    };
                    uplinks.push(WatchedUplink { port, parent });
                }
                watched.bridges.push(WatchedBridge { bridge, pods, uplinks });
            }
            watched.names.insert(name);
        }
        Ok(Watched { networks, ..watched })
    }
}
