//! The node does not forward between the network of an uplink and its own networks, even if another program
//! has switched forwarding on.

use integration::{
    AddResult, Capture, Frame, Namespace, Pod, Server, Site, Transport, ask, at, mac_bytes, merge, poll,
};
use serde_json::{Value, json};
use std::time::Duration;

/// A machine of the node's management network. No machine of the pods' network may reach it.
const MACHINE: [&str; 2] = ["192.0.2.9", "2001:db8:2::9"];
/// A machine of the pods' network that is not a pod of this node.
const STRANGER: [&str; 2] = [Site::GATEWAY, "fd00:136::1"];
const PORT: u16 = 80;

/// The chains that iptables-nft makes for `iptables -P FORWARD DROP`.
const DROP: &str = "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}\n\
                    table ip6 filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}";

/// A node with forwarding on, as every Kubernetes node has, and machines that try to send packets through it.
struct Scene {
    site: Site,
    machine: Namespace,
    _servers: Vec<Server>,
}

impl Scene {
    fn new() -> Scene {
        let (site, machine) = (Site::new(), Namespace::new("machine"));
        site.give_node_its_own_network();
        machine.ip(&format!("link add port type veth peer name nic2 netns {}", site.node.name()));
        machine.ip(
            "link set port up\naddr add 192.0.2.9/24 dev port\naddr add 2001:db8:2::9/64 dev port nodad\n\
             route add 172.20.56.0/24 via 192.0.2.1\nroute add fd00:136::/64 via 2001:db8:2::1
\
             route add 10.51.0.11 via 192.0.2.1",
        );
        site.node
            .ip("link set nic2 up\naddr add 192.0.2.1/24 dev nic2\naddr add 2001:db8:2::1/64 dev nic2 nodad");
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            site.node.set_sysctl(key, "1");
        }
        // Reverse path filtering would drop some of these packets too.
        for setting in ["all", "default", "nic1"] {
            site.node.set_sysctl(&format!("net/ipv4/conf/{setting}/rp_filter"), "0");
        }
        site.router.ip("addr add fd00:136::1/64 dev port nodad");
        machine.wait_for("2001:db8:2::1");
        let servers = Transport::ALL.map(|over| Server::start(&machine, over, PORT));
        Scene { site, machine, _servers: servers.into() }
    }

    /// The network of the uplink, with more keys.
    fn list(&self, name: &str, keys: &Value) -> Value {
        let mut conf = self.site.dual_stack_conf();
        merge(&mut conf, keys);
        self.site.node.list(name, &[conf])
    }

    /// Makes a machine of the VLAN send packets for the management network to the node, which has a route
    /// back.
    fn misdirect_stranger(&self) {
        let mac = self.site.node.mac("br136");
        self.site.router.ip(&format!(
            "neigh add 172.20.56.250 lladdr {mac} dev port\nneigh add fd00:136::250 lladdr {mac} dev port\n\
             route add 192.0.2.9 via 172.20.56.250 dev port src {}\n\
             route add 2001:db8:2::9 via fd00:136::250 dev port src {}",
            STRANGER[0], STRANGER[1]
        ));
        self.site
            .node
            .ip(&format!("route add {} dev br136\nroute add {} dev br136", STRANGER[0], STRANGER[1]));
    }

    /// The same for a pod, which can reach the node's address on the link.
    fn misdirect(&self, pod: &Pod) {
        let [v4, v6] = Site::NODE;
        pod.ip(&format!(
            "route add 192.0.2.9 via {v4} dev eth0 onlink\nroute add 2001:db8:2::9 via {v6} dev eth0 onlink"
        ));
    }

    /// The machine's addresses that answer, over TCP and UDP.
    fn crossings(&self, from: &Namespace) -> Vec<String> {
        let asked = MACHINE.into_iter().flat_map(|to| Transport::ALL.map(|over| (to, over)));
        let ask = |(to, over): (&str, Transport)| {
            let seen = ask(from, over, at(to, PORT))?;
            Some(format!("{over:?} {to} from {seen}"))
        };
        std::thread::scope(|scope| {
            let asking: Vec<_> = asked.map(|one| scope.spawn(move || ask(one))).collect();
            asking.into_iter().filter_map(|one| one.join().unwrap()).collect()
        })
    }

    /// Over both families and transports. A new bridge has no entries at first.
    fn wait_until_open(&self, from: &Namespace) {
        poll(Duration::from_secs(20), "everything crosses the node", || self.crossings(from).len() == 4);
    }

    /// Panics if a packet of the pods' network crosses the node, except answers.
    #[track_caller]
    fn assert_closed(&self, pod: &Pod, result: &AddResult, when: &str) {
        assert_eq!(self.crossings(pod), [""; 0], "a pod, {when}");
        assert_eq!(self.crossings(&self.site.router), [""; 0], "a stranger, {when}");
        let _served = Server::start(pod, Transport::Tcp, PORT);
        for own in result.addresses() {
            let seen = ask(&self.machine, Transport::Tcp, at(&own, PORT));
            assert_eq!(seen.is_some(), !when.contains("policy"), "an answer of {own}, {when}");
        }
    }
}

#[test]
fn nothing_crosses_the_node_from_an_uplinks_network() {
    for policy in [false, true] {
        for keys in [json!({}), json!({"serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"]})] {
            let scene = Scene::new();
            let when = format!("keys {keys}{}", if policy { ", policy drop" } else { "" });
            if policy {
                scene.site.node.nft(DROP);
            }
            let pod = Pod::new();
            let plugin = scene.site.node.plugin(&scene.list("boundary", &keys));
            let result = plugin.add(&pod.eth0()).result();
            scene.misdirect_stranger();
            scene.misdirect(&pod);
            scene.assert_closed(&pod, &result, &when);
            if !policy {
                scene.site.node.nft("delete table inet vlan-bridge-uplinks");
                // Otherwise the test would prove nothing.
                scene.wait_until_open(&pod);
                scene.wait_until_open(&scene.site.router);
            }
        }
    }
}

/// The boundary works without host routes, without a guard and without a pod.
#[test]
fn strangers_do_not_cross_without_host_access_guard_and_pods() {
    let (scene, pod) = (Scene::new(), Pod::new());
    let keys = json!({"hostAccess": false, "guard": false});
    let plugin = scene.site.node.plugin(&scene.list("boundary", &keys));
    plugin.add(&pod.eth0()).expect_ok();
    scene.misdirect_stranger();
    assert_eq!(scene.crossings(&scene.site.router), [""; 0]);
    plugin.del(&pod.eth0()).expect_ok();
    assert_eq!(scene.crossings(&scene.site.router), [""; 0], "after the last pod");
}

/// An IPv4 packet (RFC 791) from a pod to the machine, with a body of its protocol.
fn packet(from: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
    let ip = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut header = vec![0x45, 0, 0, 20 + body.len() as u8, 0, 1, 0, 0, 64, protocol, 0, 0];
    header.extend([ip(from), ip(MACHINE[0])].concat());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) as u16).wrapping_add((sum >> 16) as u16);
    header[10..12].copy_from_slice(&folded.to_be_bytes());
    [&header[..], body].concat()
}

/// A packet that conntrack calls invalid has no connection, and so no `ct status` for a rule to match.
#[test]
fn what_belongs_to_no_connection_does_not_cross_either() {
    let (scene, pod) = (Scene::new(), Pod::new());
    let result = scene.site.node.plugin(&scene.list("boundary", &json!({}))).add(&pod.eth0()).result();
    let [bridge, own] = [0, 2].map(|index| mac_bytes(&result.interfaces[index].mac));
    let from = result.addresses().into_iter().find(|address| !address.contains(':')).unwrap();
    let capture = Capture::start(&scene.machine, "port");
    let send = |mark: u8| {
        let mark = [mark; 8];
        // An echo reply, a TCP reset, and a TCP packet without flags, with the mark at the end.
        let reset = |flags: u8| {
            [&[0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0][..], &mark].concat()
        };
        let bodies = [(1, [&[0, 0, 0, 0, 0, 1, 0, 1][..], &mark].concat()), (6, reset(4)), (6, reset(0))];
        for (protocol, body) in bodies {
            let packet = packet(&from, protocol, &body);
            pod.send_frame("eth0", &[&bridge[..], &own, &[8, 0], &packet].concat());
        }
    };
    let has = |mark: u8| move |frame: &Frame| frame.payload.windows(8).any(|part| part == [mark; 8]);
    send(0xb1);
    scene.site.node.nft("delete table inet vlan-bridge-uplinks");
    send(0xb2);
    // Otherwise the test would prove nothing. Packets that were sent before would have come before.
    capture.wait_for("what the table kept out", has(0xb2));
    assert!(!capture.frames().iter().any(has(0xb1)));
}

#[test]
fn what_was_sent_elsewhere_than_it_was_meant_for_crosses() {
    let (scene, pod) = (Scene::new(), Pod::new());
    let keys = json!({"serviceCIDRs": ["10.96.0.0/16"]});
    scene.site.node.plugin(&scene.list("boundary", &keys)).add(&pod.eth0()).expect_ok();
    scene.site.node.nft(
        "table inet proxy {\n chain prerouting {\n type nat hook prerouting priority -100;\n \
         ip daddr 10.96.0.1 dnat ip to 192.0.2.9\n }\n}",
    );
    let service = at("10.96.0.1", PORT);
    for over in Transport::ALL {
        assert_eq!(ask(&pod, over, service), Site::NODE[0].parse().ok(), "{over:?}");
    }
}

/// An ADD, DEL or GC of any network restores it. Until then CHECK reports the fault.
#[test]
fn a_firewalls_restart_opens_the_node_until_the_next_call() {
    let (scene, pod, other) = (Scene::new(), Pod::new(), Pod::new());
    let plugin = scene.site.node.plugin(&scene.list("boundary", &json!({})));
    let local = json!({"type": "vlan-bridge", "bridge": "cni0", "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let elsewhere = scene.site.node.plugin(&scene.site.node.list("local", &[local]));
    let result = plugin.add(&pod.eth0()).result();
    scene.misdirect_stranger();
    scene.misdirect(&pod);
    for by in ["ADD", "DEL", "ADD elsewhere", "DEL elsewhere", "GC"] {
        for damage in ["flush ruleset", "flush chain inet vlan-bridge-uplinks forward"] {
            let network = if by.contains("elsewhere") { &elsewhere } else { &plugin };
            if by.starts_with("DEL") {
                network.add(&other.eth0()).expect_ok();
            }
            scene.site.node.nft(damage);
            let outcome = plugin.check(&pod.eth0(), &result);
            assert_eq!(outcome.error_code(), 101, "{by}, {damage}: {outcome}");
            match by {
                "GC" => drop(elsewhere_gc(&scene).expect_ok()),
                _ if by.starts_with("ADD") => {
                    network.add(&other.eth0()).expect_ok();
                }
                _ => drop(network.del(&other.eth0()).expect_ok()),
            }
            let rules = scene.site.node.run("nft list table inet vlan-bridge-uplinks").expect_ok().stdout;
            assert!(rules.contains("iifname \"br136\" oifname != \"br136\""), "{by}, {damage}: {rules}");
            if by.starts_with("ADD") {
                network.del(&other.eth0()).expect_ok();
            }
        }
    }
    scene.assert_closed(&pod, &result, "after a repair");
}

fn elsewhere_gc(scene: &Scene) -> integration::Outcome {
    let local = json!({"type": "vlan-bridge", "bridge": "cni0"});
    let list = scene.site.node.list("elsewhere", &[local]);
    scene.site.node.plugin(&list).with("cni.dev/valid-attachments", json!([])).gc()
}

/// The key opens the boundary, and its removal closes it again. A bridge that loses its uplink is opened too.
#[test]
fn the_node_routes_where_it_is_asked_to() {
    let (scene, pod, second) = (Scene::new(), Pod::new(), Pod::new());
    let closed = scene.list("boundary", &json!({}));
    let open = scene.list("boundary", &json!({"allowDirectRouting": true}));
    let node = &scene.site.node;
    let table = || node.run("nft list tables").expect_ok().stdout.contains("vlan-bridge-uplinks");
    node.plugin(&open).add(&pod.eth0()).expect_ok();
    scene.misdirect_stranger();
    scene.misdirect(&pod);
    scene.wait_until_open(&pod);
    scene.wait_until_open(&scene.site.router);
    node.plugin(&closed).add(&second.eth0()).expect_ok();
    assert_eq!(scene.crossings(&pod), [""; 0]);
    node.plugin(&closed).del(&second.eth0()).expect_ok();
    node.plugin(&open).add(&second.eth0()).expect_ok();
    assert!(!table());
    scene.wait_until_open(&pod);
    node.plugin(&closed).del(&second.eth0()).expect_ok();
    node.plugin(&closed).add(&second.eth0()).expect_ok();
    assert!(table());
    let local = json!({"type": "vlan-bridge", "bridge": "br136", "isGateway": true,
                       "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let list = node.list("local", &[local]);
    let third = Pod::new();
    let outcome = node.plugin(&list).add(&third.eth0()).expect_ok();
    assert!(outcome.stderr.contains("allowDirectRouting") && table(), "{outcome}");
    node.plugin(&list).del(&third.eth0()).expect_ok();
    node.ip("link set nic0 nomaster");
    node.plugin(&list).add(&third.eth0()).expect_ok();
    assert!(!table());
}

/// Even after the dropping rules are gone, our rule does not override a FORWARD policy for other machines.
#[test]
fn a_policy_of_drop_holds_for_strangers_beside_pods_with_services() {
    let (scene, pod) = (Scene::new(), Pod::new());
    scene.site.node.nft(DROP);
    let keys = json!({"serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"]});
    let result = scene.site.node.plugin(&scene.list("boundary", &keys)).add(&pod.eth0()).result();
    scene.misdirect_stranger();
    scene.misdirect(&pod);
    scene.site.node.nft("delete table inet vlan-bridge-uplinks");
    scene.assert_closed(&pod, &result, "with the policy alone");
    scene.site.node.nft("flush chain ip filter FORWARD\nchain ip filter FORWARD { policy accept; }");
    poll(Duration::from_secs(20), "IPv4 crosses without both", || scene.crossings(&pod).len() == 2);
}
