//! Nodes that share a pool of addresses, on any kernel.

use crate::{Agent, Ctl, Etcd, Namespace, Node, Outcome, Pod, Site, merge};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A router and nodes with one NIC each, `nic0`, and an etcd that they reach by another. The router has
/// [`Site::GATEWAY`] on the bridge `pods`, which is the switch of the pods' network.
#[derive(Debug)]
pub struct PoolSite {
    /// The nodes. In the pool their names are `node0` and so on.
    pub nodes: Vec<Node>,
    /// The store.
    pub etcd: Etcd,
    /// The router.
    pub router: Namespace,
}

impl PoolSite {
    /// The name of the pool of [`PoolSite::create`], and of the network that uses it.
    pub const POOL: &str = Site::NETWORK;

    /// A site with as many nodes, at most 64, and a single member of etcd.
    pub fn new(nodes: usize) -> PoolSite {
        PoolSite::with_etcd(nodes, Etcd::start())
    }

    /// The same with this etcd.
    pub fn with_etcd(count: usize, etcd: Etcd) -> PoolSite {
        let router = Namespace::new("router");
        router.ip(&format!(
            "link add pods type bridge\nlink set pods up\naddr add {}/16 dev pods",
            Site::GATEWAY
        ));
        let nodes: Vec<Node> = (0..count).map(|number| node(&router, number)).collect();
        nodes.iter().for_each(|node| etcd.link(node));
        PoolSite { nodes, etcd, router }
    }

    /// The slice of a node: 172.20.56.16/28, 172.20.56.32/28 and so on.
    pub fn slice(node: usize) -> String {
        format!("{}/28", Ipv4Addr::from(Ipv4Addr::new(172, 20, 56, 16).to_bits() + 16 * node as u32))
    }

    /// The network list of a node with its slice, and with other keys of `ipam` as a [merge patch](merge).
    pub fn list(&self, node: usize, patch: &Value) -> Value {
        let mut ipam = json!({
            "type": "vlan-bridge-ipam", "subnet": "172.20.0.0/16", "gateway": Site::GATEWAY,
            "routes": [{"dst": "0.0.0.0/0"}], "slice": PoolSite::slice(node),
            "pool": {"etcd": self.etcd.section(&format!("node{node}"))},
        });
        merge(&mut ipam, patch);
        let conf =
            json!({"type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"}, "ipam": ipam});
        self.nodes[node].list(PoolSite::POOL, &[conf])
    }

    /// The tool of a node on which this list is installed.
    pub fn ctl(&self, node: usize, list: &Value) -> Ctl<'_> {
        let ctl = Ctl::new(&self.nodes[node]);
        ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
        ctl
    }

    /// Makes the pool of this range.
    #[track_caller]
    pub fn create(&self, ctl: &Ctl<'_>, range: &str) {
        ctl.run(&format!("pool create {} --range {range}", PoolSite::POOL)).expect_ok();
    }

    /// Starts the agent of a node.
    pub fn agent(&self, ctl: &Ctl<'_>, node: usize) -> Agent {
        Agent::start(ctl, &format!("--node node{node}"))
    }

    /// What a node was granted. Null before it was granted anything.
    pub fn grants(&self, node: usize) -> Value {
        let folder = self.nodes[node].data_dir().join(".vlan-bridge");
        let path: PathBuf = folder.join(PoolSite::POOL).join("grants");
        serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default()
    }

    /// The granted addresses of a class: `home`, `leased` or `unproven`.
    pub fn granted(&self, node: usize, class: &str) -> BTreeSet<Ipv4Addr> {
        let grants = self.grants(node);
        let runs = grants[class].as_array().map(Vec::as_slice).unwrap_or_default();
        let runs = runs.iter().map(|run| run.as_str().expect("a run is a string"));
        let ends = runs.map(|run| run.split_once('-').unwrap_or((run, run)));
        let parse = |addr: &str| addr.parse::<Ipv4Addr>().expect("an address").to_bits();
        ends.flat_map(|(first, last)| parse(first)..=parse(last)).map(Ipv4Addr::from_bits).collect()
    }

    /// An ADD of a new pod on a node with this list.
    pub fn add(&self, node: usize, list: &Value) -> (Pod, Outcome) {
        let pod = Pod::new();
        let outcome = self.nodes[node].plugin(list).add(&pod.eth0());
        (pod, outcome)
    }

    /// A pod that has an address.
    #[track_caller]
    pub fn pod(&self, node: usize, list: &Value) -> (Pod, String) {
        let (pod, outcome) = self.add(node, list);
        let address = outcome.result().address();
        (pod, address)
    }

    /// Ends a pod.
    #[track_caller]
    pub fn del(&self, node: usize, list: &Value, pod: &Pod) {
        self.nodes[node].plugin(list).del(&pod.eth0()).expect_ok();
    }
}

fn node(router: &Namespace, number: usize) -> Node {
    let node = Node::new(&format!("node{number}"));
    router.ip(&format!(
        "link add pods{number} type veth peer name nic0 netns {}\n\
         link set pods{number} up master pods",
        node.name()
    ));
    node.ip("link set nic0 up");
    node
}
