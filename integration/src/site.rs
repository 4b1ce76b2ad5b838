//! The smallest network that pods can be attached to, on any kernel.

use crate::{Namespace, Node};
use serde_json::{Value, json};

/// A router and one node with one plain NIC, `nic0`, and no VLAN: what does not need a bond or a VLAN is tested
/// here, on the running kernel.
///
/// `nic0` carries no address and is up; at its other end 172.20.56.1/24 answers.
#[derive(Debug)]
pub struct Site {
    /// The router: 172.20.56.1 is on its `port`.
    pub router: Namespace,
    /// The node.
    pub node: Node,
}

impl Site {
    /// The router's address on the pods' network.
    pub const GATEWAY: &str = "172.20.56.1";
    /// The name of the network of [`Site::list`].
    pub const NETWORK: &str = "vlan136";

    /// Builds both and waits for nothing: a veth is ready at once.
    pub fn new() -> Site {
        let (router, node) = (Namespace::new("router"), Node::new("node"));
        router.ip(&format!(
            "link add port type veth peer name nic0 netns {}\n\
             link set port up\n\
             addr add {}/24 dev port",
            node.name(),
            Site::GATEWAY
        ));
        node.ip("link set nic0 up");
        Site { router, node }
    }

    /// The issue's own configuration of our plugin, without the VLAN: 16 addresses on `br136` over `nic0`.
    pub fn conf(&self) -> Value {
        json!({
            "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"},
            "ipam": {
                "type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "slice": "172.20.56.16/28",
                "gateway": Site::GATEWAY, "routes": [{"dst": "0.0.0.0/0"}],
            },
        })
    }

    /// [`Site::conf`] as a network list of this node.
    pub fn list(&self) -> Value {
        self.node.list(Site::NETWORK, &[self.conf()])
    }
}

impl Default for Site {
    fn default() -> Site {
        Site::new()
    }
}
