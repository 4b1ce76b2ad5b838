//! The smallest network that pods can be attached to, on any kernel.

use crate::{Namespace, Node, merge};
use serde_json::{Value, json};

/// A router and one node with one plain NIC, `nic0`, and no VLAN. Tests without a bond or a VLAN use it on
/// the running kernel.
///
/// `nic0` is up and has no address. The other end has 172.20.56.1/24.
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
    /// The node's own addresses, once it has [its own network](Site::give_node_its_own_network).
    pub const NODE: [&str; 2] = ["10.51.0.11", "fd00:51::11"];
    /// The name of the network of [`Site::list`].
    pub const NETWORK: &str = "vlan136";

    /// Builds both. A veth is ready at once, so there is nothing to wait for.
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

    /// Gives the node a network of its own, `nic1`, with an address of each family and the default route, and
    /// has it filter reverse paths strictly.
    pub fn give_node_its_own_network(&self) {
        let (router, node) = (&self.router, &self.node);
        router.set_sysctl("net/ipv4/ip_forward", "1");
        router.ip(&format!(
            "link add own type veth peer name nic1 netns {}\n\
             link set own up\n\
             addr add 10.51.0.1/24 dev own\naddr add fd00:51::1/64 dev own nodad",
            node.name()
        ));
        node.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
        let [v4, v6] = Site::NODE;
        node.ip(&format!(
            "link set nic1 up\n\
             addr add {v4}/24 dev nic1\naddr add {v6}/64 dev nic1 nodad\n\
             route add default via 10.51.0.1\nroute add default via fd00:51::1"
        ));
    }

    /// [`Site::conf`] for pods with an IPv6 address as well.
    pub fn dual_stack_conf(&self) -> Value {
        let mut conf = self.conf();
        conf["ipam"] = json!({
            "type": "vlan-bridge-ipam",
            "ranges": [[{"subnet": "172.20.56.0/24", "slice": "172.20.56.16/28", "gateway": Site::GATEWAY}],
                       [{"subnet": "fd00:136::/64", "slice": "fd00:136::1:0/112", "gateway": "fd00:136::1"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        });
        conf
    }

    /// The standard configuration of our plugin, without the VLAN: 16 addresses on `br136` over `nic0`.
    pub fn conf(&self) -> Value {
        json!({
            "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"},
            "ipam": {
                "type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "slice": "172.20.56.16/28",
                "gateway": Site::GATEWAY, "routes": [{"dst": "0.0.0.0/0"}],
            },
        })
    }

    /// [`Site::conf`] as another network, after a [merge patch](merge).
    pub fn network(&self, name: &str, patch: &Value) -> Value {
        let mut conf = self.conf();
        merge(&mut conf, patch);
        self.node.list(name, &[conf])
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
