//! What there is to draw: the interfaces that pods' frames pass, and which one leads to which. No I/O.

use std::collections::BTreeMap;

use cni_conf::network::Network;
use kernel::link::{Kind, Link};
use kernel::port::Membership;
use serde_json::{Value, json};

use crate::facts::{Facts, NetworkState, state};
use crate::output::printable;
use crate::pods::{addresses, host_ports, name, pods};

/// The kinds of interfaces, in the order in which a frame from outside passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Nic,
    Bond,
    Vlan,
    Bridge,
    Port,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GraphNode {
    pub(super) name: String,
    pub(super) layer: Layer,
    /// `up`, `no carrier`, `down` or `missing`
    pub(super) state: &'static str,
    pub(super) mtu: Option<u32>,
    /// What else is known: a bond's mode, a pod's addresses.
    pub(super) notes: Vec<String>,
}

impl GraphNode {
    /// The lines of its box.
    pub(super) fn lines(&self) -> Vec<String> {
        let mtu = self.mtu.map_or(String::new(), |mtu| format!(", MTU {mtu}"));
        let state = format!("{}{mtu}", self.state);
        [self.name.clone()].into_iter().chain(self.notes.iter().cloned()).chain([state]).collect()
    }
}

/// A way from an interface to the next one, nearer to the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// Places in `Graph::nodes`.
    pub(super) from: usize,
    pub(super) to: usize,
    /// The VLANs, or the role of a bond's member.
    pub(super) label: String,
    /// Frames pass.
    pub(super) carries: bool,
}

/// The interfaces and the ways between them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<GraphNode>,
    pub(super) edges: Vec<Edge>,
    places: BTreeMap<String, usize>,
}

impl Graph {
    /// Everything that the networks' pods use.
    pub(super) fn of(facts: &Facts) -> Graph {
        let mut graph = Graph::default();
        for network in &facts.networks {
            graph.network(facts, network);
        }
        for pod in pods(facts) {
            graph.pod(facts, &pod);
        }
        graph
    }

    /// The ways that end at an interface, from outside.
    pub(super) fn into(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == node)
    }

    /// The ways that begin at an interface, towards the pods.
    pub(super) fn out_of(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.from == node)
    }

    /// Whether an interface is drawn only beside its bond.
    pub(super) fn is_member(&self, node: usize) -> bool {
        self.into(node).next().is_none()
            && self.out_of(node).next().is_some()
            && self.out_of(node).all(|edge| self.nodes[edge.to].layer == Layer::Bond)
    }

    /// The interfaces with which a drawing begins.
    pub(super) fn roots(&self) -> impl Iterator<Item = usize> + '_ {
        let is_root = |node: &usize| self.into(*node).all(|edge| self.is_member(edge.from));
        (0..self.nodes.len()).filter(is_root).filter(|node| !self.is_member(*node))
    }

    /// For `-o json`.
    pub(super) fn to_json(&self) -> Value {
        let node = |node: &GraphNode| {
            json!({"name": node.name, "layer": format!("{:?}", node.layer).to_lowercase(), "state": node.state,
            "mtu": node.mtu, "notes": node.notes})
        };
        let edge = |edge: &Edge| {
            json!({"from": self.nodes[edge.from].name, "to": self.nodes[edge.to].name,
            "label": edge.label, "carries": edge.carries})
        };
        json!({"interfaces": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "ways": self.edges.iter().map(edge).collect::<Vec<_>>()})
    }

    /// Adds an interface once.
    fn node(&mut self, facts: &Facts, name: &str, missing: Layer) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let link = facts.link(name);
        let mut notes = Vec::new();
        if let Some(Kind::Bond(options)) = link.map(|link| &link.kind) {
            notes.push(options.mode.clone());
        }
        let node = GraphNode {
            name: printable(name).into_owned(),
            layer: link.map_or(missing, layer),
            state: link.map_or("missing", state),
            mtu: link.map(|link| link.mtu),
            notes,
        };
        self.nodes.push(node);
        self.places.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn note(&mut self, node: usize, note: String) {
        if !self.nodes[node].notes.contains(&note) {
            self.nodes[node].notes.push(note);
        }
    }

    fn connect(&mut self, from: usize, to: usize, label: String) {
        let carries = [from, to].iter().all(|node| self.nodes[*node].state == "up");
        if !self.edges.iter().any(|edge| (edge.from, edge.to) == (from, to)) {
            self.edges.push(Edge { from, to, label, carries });
        }
    }

    /// Adds an interface, and those below it down to the NICs.
    fn lower(&mut self, facts: &Facts, link: &Link) -> usize {
        let is_known = self.places.contains_key(&link.name);
        let node = self.node(facts, &link.name, Layer::Nic);
        if is_known {
            return node;
        }
        match &link.kind {
            Kind::Vlan { id, .. } => {
                let parent = facts.links.iter().find(|other| Some(other.index) == link.parent);
                if let Some(parent) = parent {
                    let from = self.lower(facts, parent);
                    self.connect(from, node, format!("VLAN {id}"));
                }
            }
            Kind::Bond(_) => {
                let bond = facts.bonds.get(&link.name).cloned().unwrap_or_default();
                for member in &bond.members {
                    let from = self.node(facts, &member.name, Layer::Nic);
                    if member.up {
                        self.note(from, format!("{} {}", member.speed, member.duplex));
                    }
                    self.connect(from, node, bond.role(member).to_owned());
                }
            }
            _ => {}
        }
        node
    }

    /// Adds a network's bridge, and its way out.
    fn network(&mut self, facts: &Facts, seen: &NetworkState) {
        let network = &seen.config.network;
        let bridge = self.bridge(facts, &network.bridge);
        self.note(bridge, format!("network {}", printable(&seen.config.name)));
        match &network.uplink {
            Some(uplink) => {
                let master = match facts.link(&uplink.master) {
                    Some(master) => self.lower(facts, master),
                    None => self.node(facts, &uplink.master, Layer::Nic),
                };
                let port = match facts.link(uplink.port_name()) {
                    Some(port) => self.lower(facts, port),
                    None => self.node(facts, uplink.port_name(), Layer::Vlan),
                };
                if port != master {
                    self.connect(master, port, String::new());
                }
                let label = self.port_label(facts, uplink.port_name(), &network.bridge);
                self.connect(port, bridge, label);
            }
            None => self.way_out(facts, network, bridge),
        }
        if let Some((near, vid)) = network.node_side().filter(|(near, _)| facts.link(near).is_some()) {
            let side = self.node(facts, &near, Layer::Port);
            self.nodes[side].layer = Layer::Port;
            self.note(side, "the node's side".into());
            self.note_addresses(facts, side, &near);
            self.connect(bridge, side, format!("VLAN {vid}"));
        }
    }

    fn bridge(&mut self, facts: &Facts, name: &str) -> usize {
        let bridge = self.node(facts, name, Layer::Bridge);
        self.note_addresses(facts, bridge, name);
        bridge
    }

    fn note_addresses(&mut self, facts: &Facts, node: usize, name: &str) {
        let Some(link) = facts.link(name) else { return };
        facts.addresses(link).for_each(|address| self.note(node, address.net.to_string()));
    }

    /// The interface by which pods behind a gateway bridge leave the node.
    fn way_out(&mut self, facts: &Facts, network: &Network, bridge: usize) {
        let defaults = facts.routes.iter().filter(|installed| installed.route.dst.prefix_len() == 0);
        let best = defaults.min_by_key(|installed| installed.route.priority.unwrap_or(0));
        let device = best.and_then(|best| facts.links.iter().find(|link| Some(link.index) == best.interface));
        if let Some(device) = device.filter(|_| network.is_gateway) {
            let from = self.lower(facts, device);
            self.note(from, "the node's default route".into());
            self.note_addresses(facts, from, &device.name);
            let label = if network.masquerade { "NAT" } else { "routed" };
            self.connect(from, bridge, label.into());
        }
    }

    /// Adds the port of a pod.
    fn pod(&mut self, facts: &Facts, pod: &Value) {
        let Some(port) = pod["port"].as_str() else { return };
        let node = self.node(facts, port, Layer::Port);
        addresses(pod).iter().for_each(|address| self.note(node, (*address).to_owned()));
        self.note(node, name(pod).into_owned());
        let ports = host_ports(pod);
        if !ports.is_empty() {
            self.note(node, format!("host ports {ports}"));
        }
        if let Some(bridge) = pod["bridge"].as_str() {
            let label = self.port_label(facts, port, bridge);
            let bridge = self.bridge(facts, bridge);
            self.connect(bridge, node, label);
        }
    }

    /// What is to be said of a bridge's port: its VLANs if the bridge filters, and whether it is one.
    fn port_label(&self, facts: &Facts, port: &str, bridge: &str) -> String {
        let (Some(port), Some(bridge)) = (facts.link(port), facts.link(bridge)) else { return String::new() };
        if port.master != Some(bridge.index) {
            return "not in the bridge".into();
        }
        let known = facts.port_vlans.iter().find(|known| known.port == port.index);
        match known.filter(|_| bridge.bridge().is_some_and(|options| options.vlan_filtering)) {
            Some(known) => vlans(&known.vlans),
            None => String::new(),
        }
    }
}

fn layer(link: &Link) -> Layer {
    match &link.kind {
        Kind::Bridge(_) => Layer::Bridge,
        Kind::Vlan { .. } => Layer::Vlan,
        Kind::Bond(_) => Layer::Bond,
        Kind::Veth if vlan_bridge::ownership::is_attachment(link) => Layer::Port,
        _ => Layer::Nic,
    }
}

/// The VLANs of a port: `VLAN 136 untagged, 140-143`.
fn vlans(vlans: &[Membership]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let untagged = vlans.iter().filter(|vlan| vlan.untagged || vlan.pvid);
    parts.extend(untagged.map(|vlan| format!("{} untagged", vlan.vid)));
    let mut tagged: Vec<u16> =
        vlans.iter().filter(|vlan| !vlan.untagged && !vlan.pvid).map(|vlan| vlan.vid).collect();
    tagged.sort_unstable();
    for run in tagged.chunk_by(|one, next| one + 1 == *next) {
        match run {
            [only] => parts.push(only.to_string()),
            [first, .., last] => parts.push(format!("{first}-{last}")),
            [] => {}
        }
    }
    if parts.is_empty() { "no VLAN".into() } else { format!("VLAN {}", parts.join(", ")) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two NICs, a bond, a sub-interface, a bridge and two pods, one of them cut off.
    pub(in super::super) fn example() -> Graph {
        let mut graph = Graph::default();
        let layers =
            [Layer::Nic, Layer::Nic, Layer::Bond, Layer::Vlan, Layer::Bridge, Layer::Port, Layer::Port];
        let names = ["nic0", "nic1", "bond0", "bond0.136", "br136", "veth1", "veth2"];
        for (layer, name) in layers.into_iter().zip(names) {
            let state = if name == "veth2" { "down" } else { "up" };
            let notes =
                if name == "veth1" { vec!["172.20.56.16".into(), "a<b>\"&\\".into()] } else { Vec::new() };
            graph.nodes.push(GraphNode { name: name.into(), layer, state, mtu: Some(1500), notes });
        }
        for (from, to, label) in
            [(0, 2, "active"), (1, 2, "backup"), (2, 3, "VLAN 136"), (3, 4, ""), (4, 5, ""), (4, 6, "")]
        {
            graph.connect(from, to, label.into());
        }
        graph
    }

    #[test]
    fn a_drawing_begins_at_the_bond() {
        let graph = example();
        assert_eq!(graph.roots().collect::<Vec<_>>(), [2]);
        assert!(graph.is_member(0) && graph.is_member(1) && !graph.is_member(2));
        assert_eq!(graph.edges.iter().filter(|edge| !edge.carries).count(), 1);
    }

    #[test]
    fn vlans_are_put_together() {
        let tagged = Membership::tagged;
        assert_eq!(vlans(&[Membership::access(136)]), "VLAN 136 untagged");
        assert_eq!(
            vlans(&[Membership::access(1), tagged(7), tagged(5), tagged(6), tagged(9)]),
            "VLAN 1 untagged, 5-7, 9"
        );
        assert_eq!(vlans(&[]), "no VLAN");
    }
}
