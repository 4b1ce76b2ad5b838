//! The machines of the cluster and the two networks between them.

use crate::control::Control;
use crate::machine::Machine;
use integration::{Namespace, Node};
use std::fmt::Write;

/// The network of the pods. It is untagged because not every kernel has VLANs. The controller manager gives
/// each node a part of it.
pub const PODS: &str = "172.20.56.0/24";
/// The router of the pods' network.
pub const GATEWAY: &str = "172.20.56.1";
/// The subnet of the services' addresses.
pub const SERVICES: &str = "10.96.0.0/16";
/// The router of the machines' own network.
const ROUTER: &str = "10.51.0.1";

/// The whole cluster. Fields are dropped in this order, so each program ends before the programs that it
/// talks to.
pub struct Cluster {
    /// The two nodes.
    pub nodes: [Machine; 2],
    /// The control plane.
    pub control: Control,
    /// The router between the networks. It has an address in each, so it is also a client from another
    /// network.
    pub router: Namespace,
}

impl Cluster {
    /// Builds the networks, starts the control plane and then the nodes.
    pub fn start() -> Cluster {
        let router = router();
        let control = Control::start(machine(&router, "control", Control::ADDRESS));
        let nodes = ["n1", "n2"].map(|name| {
            let address = if name == "n1" { "10.51.0.11" } else { "10.51.0.12" };
            let node = machine(&router, name, address);
            uplink(&router, &node, name);
            Machine::start(node, name, address, &control)
        });
        Cluster { nodes, control, router }
    }

    /// The state to print after a failed step.
    pub fn account(&self) -> String {
        let mut account = String::new();
        let looks =
            ["get nodes,pods,services,endpoints --all-namespaces -o wide", "get events --all-namespaces"];
        for look in looks {
            let _ = writeln!(account, "{}", self.control.kubectl(look));
        }
        let logs =
            "logs --namespace kube-system --selector app.kubernetes.io/name=vlan-bridge --all-containers";
        let _ = writeln!(account, "{}", self.control.kubectl(logs));
        for (host, names) in [
            (&self.control.host, &["apiserver", "controllers", "scheduler"][..]),
            (&*self.nodes[0].containerd, &["kubelet", "proxy", "containerd"]),
            (&*self.nodes[1].containerd, &["kubelet", "proxy"]),
        ] {
            for name in names {
                let log = host.log(name);
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(8)..].join("\n");
                let _ = writeln!(account, "--- {name}\n{end}");
            }
        }
        account
    }
}

/// A bridge for the pods' network and one for the machines', with the routers' addresses.
fn router() -> Namespace {
    let router = Namespace::new("router");
    router.set_sysctl("net/ipv4/ip_forward", "1");
    router.ip(&format!(
        "link add pods type bridge\n\
         link set pods up\n\
         addr add {GATEWAY}/24 dev pods\n\
         link add machines type bridge\n\
         link set machines up\n\
         addr add {ROUTER}/24 dev machines"
    ));
    router
}

/// A machine with a NIC on the machines' network, the default route through it, and strict filtering of
/// reverse paths.
fn machine(router: &Namespace, name: &str, address: &str) -> Node {
    let node = Node::new(name);
    router.ip(&format!(
        "link add own-{name} type veth peer name nic1 netns {}\n\
         link set own-{name} master machines up",
        node.name()
    ));
    node.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    node.ip(&format!(
        "link set nic1 up\n\
         addr add {address}/24 dev nic1\n\
         route add default via {ROUTER}"
    ));
    node
}

/// The node's other NIC, on the pods' network.
fn uplink(router: &Namespace, node: &Node, name: &str) {
    router.ip(&format!(
        "link add pods-{name} type veth peer name nic0 netns {}\n\
         link set pods-{name} master pods up",
        node.name()
    ));
    node.ip("link set nic0 up");
}
