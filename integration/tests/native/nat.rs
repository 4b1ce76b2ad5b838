//! A node in NAT mode and its packet filter, for the tests of host ports and masquerading.

pub(crate) mod closed;
pub(crate) mod kill;
pub(crate) mod localhost;
pub(crate) mod paths;
pub(crate) mod repair;
pub(crate) mod rules;
pub(crate) mod services;
pub(crate) mod siblings;

use integration::{Attachment, Namespace, Node, Plugin, Pod, Snapshot, merge};
use serde_json::{Value, json};

/// A node with two addresses of each family on `nic0`, and a machine on the same segment without a route to
/// the pods.
pub struct Nat {
    pub machine: Namespace,
    pub node: Node,
    before: Snapshot,
}

/// The node's addresses.
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];
/// The node's other addresses, for `hostIP`.
pub const OTHER: [&str; 2] = ["192.0.2.2", "2001:db8:2::2"];
/// The machine's addresses.
pub const MACHINE: [&str; 2] = ["192.0.2.9", "2001:db8:2::9"];
/// The gateways of the pods, addresses of `cni0`.
pub const GATEWAY: [&str; 2] = ["10.22.0.1", "fd00:22::1"];

/// Our table.
pub const TABLE: &str = "table inet vlan-bridge";

impl Nat {
    /// The node without pods, with the bridges and forwarding, which stay.
    pub fn new() -> Nat {
        let (machine, node) = (Namespace::new("machine"), Node::new("node"));
        machine.ip(&format!("link add port type veth peer name nic0 netns {}", node.name()));
        machine
            .ip("link set port up\naddr add 192.0.2.9/24 dev port\naddr add 2001:db8:2::9/64 dev port nodad");
        node.ip("link set nic0 up\n\
             addr add 192.0.2.1/24 dev nic0\naddr add 192.0.2.2/24 dev nic0\n\
             addr add 2001:db8:2::1/64 dev nic0 nodad\naddr add 2001:db8:2::2/64 dev nic0 nodad preferred_lft 0");
        for setting in ["all", "default", "nic0"] {
            node.set_sysctl(&format!("net/ipv4/conf/{setting}/rp_filter"), "1");
        }
        machine.wait_for(NODE[1]);
        let before = Snapshot::of(&node);
        let mut nat = Nat { machine, node, before };
        nat.settle();
        nat
    }

    /// Attaches and detaches a pod of each network. What remains belongs to the node.
    fn settle(&mut self) {
        let pod = Pod::new();
        for plugin in [self.local(), self.other()] {
            plugin.add(&pod.eth0()).expect_ok();
            plugin.del(&pod.eth0()).expect_ok();
        }
        self.before = Snapshot::of(&self.node);
    }

    /// The network `local` on `cni0`: both families, masqueraded, with host ports.
    pub fn local(&self) -> Plugin<'_> {
        self.plugin("local", "cni0", &json!({"ipMasq": true}))
    }

    /// The network `other` on `cni1`: not masqueraded.
    pub fn other(&self) -> Plugin<'_> {
        self.plugin("other", "cni1", &json!({}))
    }

    fn plugin(&self, network: &str, bridge: &str, keys: &Value) -> Plugin<'_> {
        self.node.plugin(&self.list(network, bridge, keys))
    }

    /// A list whose only plugin is ours.
    pub fn list(&self, network: &str, bridge: &str, keys: &Value) -> Value {
        let third = if bridge == "cni0" { 22 } else { 33 };
        let mut conf = json!({
            "type": "vlan-bridge", "bridge": bridge, "isDefaultGateway": true,
            "capabilities": {"portMappings": true},
            "ipam": {
                "type": "vlan-bridge-ipam",
                "ranges": [[{"subnet": format!("10.{third}.0.0/24")}], [{"subnet": format!("fd00:{third}::/64")}]],
            },
        });
        merge(&mut conf, keys);
        self.node.list(network, &[conf])
    }

    /// `nft list ruleset`
    pub fn rules(&self) -> String {
        self.node.run("nft list ruleset").expect_ok().stdout
    }

    /// The number of times that a string occurs in our table.
    pub fn count(&self, text: &str) -> usize {
        self.node.run(&format!("nft list {TABLE}")).stdout.matches(text).count()
    }

    /// Panics unless the node is as without pods: no rule, link, record or lease, and no way in for packets
    /// from 127.0.0.0/8.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.before.assert_unchanged(&self.node);
        for bridge in ["cni0", "cni1"] {
            assert_eq!(self.node.sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet")), "0", "{bridge}");
        }
        let records = self.node.records();
        assert!(!records.exists(), "{} is left", records.display());
        for network in ["local", "other"] {
            assert!(self.node.leases(network).is_empty(), "leases of {network} are left");
        }
    }
}

/// A pod's `eth0` with host ports: `(host port, protocol, pod's port, host address or "")`.
pub fn with_ports(pod: &Pod, ports: &[(u16, &str, u16, &str)]) -> Attachment {
    let mappings: Vec<Value> = ports
        .iter()
        .map(|(host, protocol, container, ip)| {
            json!({"hostPort": host, "protocol": protocol, "containerPort": container, "hostIP": ip})
        })
        .collect();
    pod.eth0().capabilities(json!({"portMappings": mappings}))
}
