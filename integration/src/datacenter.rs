//! Two switches, a router and nodes with bonded NICs.
//!
//! ```text
//!  node 1          node 2           node 3
//!  bond0           bond0            bond0            bond0.51 has the node's own address
//!  nic0 nic1       nic0 nic1        nic0 nic1
//!   └─┬──┘          │    │           └─┬──┘
//!   LACP bond       │    │          static LAG
//!     │             │    │             │
//!  ┌──┴─────────────┴┐  ┌┴─────────────┴──┐
//!  │    ToR A        ├──┤     ToR B       │         vlan_filtering bridges, every port a trunk
//!  └──┬──────────────┘  └─────────────────┘
//!   router: .1 on every VLAN
//! ```

mod bond;
mod bonding;
mod switch;

pub use bond::{BondMode, BondedNode, Member};

use crate::Namespace;
use std::cell::Cell;
use switch::Switch;

/// The VLANs that every trunk carries: ID and the first three numbers of the /24. Each also has fd00:ID::/64.
pub const VLANS: [(u16, &str); 4] =
    [(51, "10.51.0"), (52, "10.52.0"), (136, "172.20.56"), (137, "172.20.57")];

/// The network that nodes are connected to. Add nodes with [`DataCenter::node`].
#[derive(Debug)]
pub struct DataCenter {
    switches: [Switch; 2],
    router: Namespace,
    plugged: Cell<u8>,
}

impl DataCenter {
    /// Builds switches and router.
    pub fn new() -> DataCenter {
        let switches = [Switch::new("tor-a"), Switch::new("tor-b")];
        let router = Namespace::new("router");
        let [a, b] = &switches;
        a.namespace().ip(&format!(
            "link add peer type veth peer name peer netns {}\n\
             link add router type veth peer name trunk netns {}",
            b.namespace().name(),
            router.name()
        ));
        a.plug("peer");
        a.plug("router");
        b.plug("peer");
        router.set_sysctl("net/ipv4/ip_forward", "1");
        router.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        let mut lines = String::from("link set trunk up\n");
        for (vlan, prefix) in VLANS {
            lines += &format!(
                "link add link trunk name trunk.{vlan} type vlan id {vlan}\n\
                 link set trunk.{vlan} up\n\
                 addr add {prefix}.1/24 dev trunk.{vlan}\n\
                 addr add fd00:{vlan}::1/64 dev trunk.{vlan} nodad\n"
            );
        }
        router.ip(&lines);
        DataCenter { switches, router, plugged: Cell::new(0) }
    }

    /// Connects a node and waits until it reaches the router. The first node is number 1.
    pub fn node(&self, mode: BondMode) -> BondedNode<'_> {
        let [node] = self.nodes([mode]);
        node
    }

    /// Connects several nodes at the same time.
    pub fn nodes<const N: usize>(&self, modes: [BondMode; N]) -> [BondedNode<'_>; N] {
        let nodes = modes.map(|mode| {
            self.plugged.set(self.plugged.get() + 1);
            BondedNode::plug(self, self.plugged.get(), mode)
        });
        nodes.iter().for_each(BondedNode::wait_until_ready);
        nodes
    }

    /// The router, with `trunk` and a `trunk.<vlan>` for each VLAN.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The first switch's namespace, which has the router. Its ports are named by what they connect: `peer`,
    /// `router`, `lag-<number>`, `n<number>-<member>`.
    pub fn tor_a(&self) -> &Namespace {
        self.switches[0].namespace()
    }

    /// The second switch's namespace.
    pub fn tor_b(&self) -> &Namespace {
        self.switches[1].namespace()
    }

    /// The second switch loses the nodes' VLANs towards the first one. Every cable keeps its carrier, so no
    /// switch forgets a MAC.
    pub fn cut_beyond_the_switch(&self) {
        self.tor_b().bridge("vlan del dev peer vid 51\nvlan del dev peer vid 136");
    }

    /// Ends the cut.
    pub fn restore_beyond_the_switch(&self) {
        self.tor_b().bridge("vlan add dev peer vid 51\nvlan add dev peer vid 136");
    }
}

impl Default for DataCenter {
    fn default() -> DataCenter {
        DataCenter::new()
    }
}
