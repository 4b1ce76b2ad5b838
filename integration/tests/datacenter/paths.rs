//! Every path of a pod on a VLAN: an exchange over each protocol and family, under each kernel setting that
//! is known to break one.

use crate::attach::attach;
use integration::{
    BondMode, BondedNode, Capture, DataCenter, Frame, Namespace, Pod, Protocol, Server, Transport, note, poll,
};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Where servers listen.
const PORT: u16 = 7000;

/// A machine, with its name in the table.
struct Party<'a> {
    name: &'static str,
    namespace: &'a Namespace,
    /// One address of each family.
    addresses: [IpAddr; 2],
}

impl<'a> Party<'a> {
    fn new(name: &'static str, namespace: &'a Namespace, addresses: [&str; 2]) -> Party<'a> {
        Party { name, namespace, addresses: addresses.map(|address| address.parse().unwrap()) }
    }

    fn serve(&self) -> Vec<Server> {
        let listen = |address: &IpAddr| {
            let address = SocketAddr::new(*address, PORT);
            Transport::ALL.map(|transport| Server::on(self.namespace, transport, address))
        };
        self.addresses.iter().flat_map(listen).collect()
    }
}

/// Tries a path with each protocol and family. Returns its line of the table and its failures. The server
/// must see the client's address.
fn try_path(from: &Party, to: &Party) -> (String, Vec<String>) {
    let mut line = format!("{:>18} -> {:<22}", from.name, to.name);
    let mut failures = Vec::new();
    for (family, (own, other)) in ["v4", "v6"].iter().zip(from.addresses.iter().zip(&to.addresses)) {
        for protocol in Protocol::ALL {
            let seen = from.namespace.asks(protocol, SocketAddr::new(*other, PORT));
            let expected = if protocol == Protocol::Ping { other } else { own };
            let ok = seen == Some(*expected);
            line += &format!(" {family} {protocol:?} {:<4}", if ok { "ok" } else { "LOST" });
            if !ok {
                failures.push(format!("{} -> {} {family} {protocol:?}: saw {seen:?}", from.name, to.name));
            }
        }
    }
    (line, failures)
}

/// How many packets reverse path filtering has dropped.
pub(crate) fn dropped_by_rp_filter(node: &Namespace) -> u64 {
    let text = node.read("/proc/thread-self/net/netstat");
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let value = names.zip(values).find(|(name, _)| *name == "IPReversePathFilter").unwrap().1;
    value.parse().unwrap()
}

/// Sets `rp_filter` on every interface of a node, except a trunk's bridge, where the plugin needs it loose.
pub(crate) fn set_rp_filter(node: &Namespace, value: &str) {
    let links = node.ip_json("link show");
    let names = links.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str());
    for name in names.chain(["all", "default"]) {
        let key = format!("net/ipv4/conf/{name}/rp_filter");
        if node.read(&format!("/proc/sys/{key}")).trim() != "2" {
            node.set_sysctl(&key, value);
        }
    }
}

/// Gives a node the chain that iptables-nft makes for `iptables -P FORWARD DROP`, or ACCEPT. Rules in the
/// chain stay.
fn set_forward_policy(node: &Namespace, policy: &str) {
    for family in ["ip", "ip6"] {
        node.nft(&format!(
            "table {family} filter {{\n chain FORWARD {{\n type filter hook forward priority 0; policy {policy};\n }}\n}}"
        ));
    }
}

fn set_br_netfilter(node: &Namespace, on: bool) {
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        node.set_sysctl(&format!("net/bridge/{key}"), if on { "1" } else { "0" });
    }
}

/// The list of VLAN 136 with pods of both families, on a sub-interface or a trunk.
pub(crate) fn dual_stack(node: &BondedNode, trunk: bool) -> Value {
    let mut conf = node.dual_stack_conf();
    if trunk {
        conf["bridge"] = json!("br0");
        conf["uplink"] = json!({"master": "bond0"});
        conf["vlan"] = json!(136);
    }
    node.list("vlan136", &[conf])
}

/// The same for VLAN 137.
pub(crate) fn vlan137(node: &BondedNode, trunk: bool) -> Value {
    let text = dual_stack(node, trunk).to_string();
    let text = text.replace("172.20.56.", "172.20.57.").replace("fd00:136:", "fd00:137:");
    let mut list: Value = serde_json::from_str(&text.replace("136", "137")).unwrap();
    list["name"] = json!("vlan137");
    list
}

#[test]
fn every_path_of_a_pod_on_a_sub_interface() {
    every_path(false);
}

#[test]
fn every_path_of_a_pod_on_a_trunk() {
    every_path(true);
}

/// Settings of the kernel under which a path is tried.
pub(crate) struct Surroundings {
    rp_filter: &'static str,
    /// On the pod's node. The other node has the opposite.
    pub(crate) br_netfilter: bool,
    /// The policy of FORWARD.
    forward: &'static str,
}

impl Surroundings {
    const fn new(rp_filter: &'static str, br_netfilter: bool, forward: &'static str) -> Surroundings {
        Surroundings { rp_filter, br_netfilter, forward }
    }

    /// With the two topologies, the pod's node has every pair of values.
    pub(crate) fn of(trunk: bool) -> &'static [Surroundings] {
        const SUB_INTERFACE: [Surroundings; 2] =
            [Surroundings::new("0", false, "accept"), Surroundings::new("1", true, "drop")];
        const TRUNK: [Surroundings; 3] = [
            Surroundings::new("0", true, "drop"),
            Surroundings::new("1", false, "drop"),
            Surroundings::new("1", true, "accept"),
        ];
        if trunk { &TRUNK } else { &SUB_INTERFACE }
    }

    /// When pods are attached. The plugin then accepts them under a policy of drop, if br_netfilter is on.
    pub(crate) fn before_the_first_pod(nodes: [&Namespace; 2]) {
        for node in nodes {
            set_br_netfilter(node, true);
            set_forward_policy(node, "drop");
        }
    }

    /// Sets them on the pod's node and on the other node, and describes them.
    pub(crate) fn set(&self, nodes: [&Namespace; 2], trunk: bool) -> String {
        for (node, br_netfilter) in nodes.into_iter().zip([self.br_netfilter, !self.br_netfilter]) {
            set_rp_filter(node, self.rp_filter);
            set_br_netfilter(node, br_netfilter);
            set_forward_policy(node, self.forward);
        }
        let Surroundings { rp_filter, br_netfilter, forward } = self;
        let topology = if trunk { "trunk" } else { "sub-interface" };
        format!(
            "{topology}, rp_filter {rp_filter}, br_netfilter {}, FORWARD {forward}",
            u8::from(*br_netfilter)
        )
    }
}

/// A machine of another network, behind the router: 192.0.2.9 and 2001:db8::9.
pub(crate) fn machine_beyond(router: &Namespace) -> Namespace {
    let beyond = Namespace::new("beyond");
    router.ip(&format!(
        "link add beyond type veth peer name eth0 netns {}\nlink set beyond up\n\
         addr add 192.0.2.1/24 dev beyond\naddr add 2001:db8::1/64 dev beyond nodad",
        beyond.name()
    ));
    beyond.ip("link set eth0 up\naddr add 192.0.2.9/24 dev eth0\naddr add 2001:db8::9/64 dev eth0 nodad\n\
               route add default via 192.0.2.1\nroute add default via 2001:db8::1");
    beyond
}

fn every_path(trunk: bool) {
    let datacenter = DataCenter::new();
    let [node1, node2] = datacenter.nodes([BondMode::Lacp, BondMode::RoundRobin]);
    node1.join(52);
    let router = datacenter.router();
    let beyond = machine_beyond(router);
    let nodes = [node1.namespace(), node2.namespace()];
    Surroundings::before_the_first_pod(nodes);
    let pods: [(Pod, [String; 2]); 4] = [
        (&node1, dual_stack(&node1, trunk)),
        (&node1, dual_stack(&node1, trunk)),
        (&node2, dual_stack(&node2, trunk)),
        (&node2, vlan137(&node2, trunk)),
    ]
    .map(|(node, list)| {
        let pod = Pod::new();
        let given = node.client(&list).add(&pod.eth0()).result().addresses();
        (pod, [given[0].clone(), given[1].clone()])
    });
    let pod = |index: usize, name| {
        let (pod, [v4, v6]) = &pods[index];
        Party::new(name, pod, [v4, v6])
    };
    let of_node = |name, node: &'static str, vlan| {
        let node = if node == "1" { &node1 } else { &node2 };
        Party::new(name, node.namespace(), [&node.address(vlan), &node.address6(vlan)])
    };
    let client = pod(0, "pod");
    let servers = [
        pod(1, "pod, same node"),
        pod(2, "pod, other node"),
        pod(3, "pod, other VLAN"),
        Party::new("router", router, ["172.20.56.1", "fd00:136::1"]),
        Party::new("machine beyond", &beyond, ["192.0.2.9", "2001:db8::9"]),
        of_node("own node on VLAN 51", "1", 51),
        of_node("own node on VLAN 52", "1", 52),
        of_node("other node", "2", 51),
    ];
    let clients = [
        of_node("own node", "1", 51),
        of_node("other node", "2", 51),
        Party::new("machine beyond", &beyond, ["192.0.2.9", "2001:db8::9"]),
    ];
    let _serving: Vec<Server> = servers.iter().chain([&client]).flat_map(Party::serve).collect();
    for server in &servers[..5] {
        client.namespace.wait_for(&server.addresses[0].to_string());
        client.namespace.wait_for(&server.addresses[1].to_string());
    }

    let uplink = Capture::start(datacenter.tor_a(), "lag-1");
    let before = dropped_by_rp_filter(&node1);
    let mut failures = Vec::new();
    for surroundings in Surroundings::of(trunk) {
        let mut table = surroundings.set(nodes, trunk);
        let forth = servers.iter().map(|server| (&client, server));
        for (from, to) in forth.chain(clients.iter().map(|other| (other, &client))) {
            let (line, failed) = try_path(from, to);
            table += &format!("\n{line}");
            failures.extend(failed);
        }
        note(&table);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(dropped_by_rp_filter(&node1), before, "reverse path filtering has dropped something");

    // Outside, no frame between the pod and its node may be seen. Frames of the node in its own VLAN are
    // seen.
    assert!(node1.pings("10.51.0.1"));
    let of_node1: Vec<IpAddr> = [51, 52]
        .into_iter()
        .flat_map(|vlan| [node1.address(vlan), node1.address6(vlan)])
        .map(|address| address.parse().unwrap())
        .collect();
    let names_node1 = |frame: &&Frame| of_node1.iter().any(|address| frame.mentions(*address));
    let frames = uplink.frames();
    let in_vlan = |vlan: u16| frames.iter().filter(move |frame| frame.vlans == [vlan]).filter(names_node1);
    assert!(in_vlan(51).count() > 0, "the capture would not see the node at all");
    let strays: Vec<&Frame> = in_vlan(136).collect();
    assert!(strays.is_empty(), "{strays:?}");
}

/// Without host access, strict filtering drops a pod's packets to its node. With it, only forged packets are
/// dropped.
#[test]
fn without_host_access_strict_filtering_drops_what_a_pod_sends_to_its_node() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    node.join(52);
    let own = SocketAddr::new(node.address(52).parse().unwrap(), PORT);
    let _server = Server::on(&node, Transport::Tcp, own);
    let mut list = node.list136();
    list["plugins"][0]["hostAccess"] = json!(false);
    let control = attach(&node, &list);
    control.pod.wait_for("172.20.56.1");
    let before = dropped_by_rp_filter(&node);
    assert_eq!(control.pod.asks(Protocol::Tcp, own), None, "the trap is gone: nothing is proved here");
    let trapped = dropped_by_rp_filter(&node);
    assert!(trapped > before);
    node.client(&list).del(&control.pod.eth0()).expect_ok();

    let attached = attach(&node, &node.list136());
    attached.pod.wait_for("172.20.56.1");
    let seen = attached.pod.asks(Protocol::Tcp, own);
    assert_eq!(seen, attached.address.parse().ok());
    assert_eq!(dropped_by_rp_filter(&node), trapped);

    // A machine outside that uses the pod's address.
    let router = datacenter.router();
    router.ip(&format!("addr add {}/32 dev lo", attached.address));
    poll(Duration::from_secs(20), "the forged packet is dropped", || {
        assert!(!router.run(&format!("ping -c 1 -W 1 -I {} 10.51.0.11", attached.address)).ok());
        dropped_by_rp_filter(&node) > trapped
    });
}
