//! What `cargo xtask bench paths` runs: NAT mode with two host ports a pod, against the reference's bridge
//! with ipMasq and portmap, and what a connection by a host port or a service loses against one that meets no
//! rule.
//!
//! Runs alternate between the contestants, so that whatever else the machine does falls on all. A call is
//! timed from the start of the process to its end, with the node's namespace entered before the clock starts.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it reports to a person, and fails like a test"
)]

use integration::{Attachment, Call, Namespace, Node, Pod, Site, growth, median, peer, plugin};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Runs of each kind, after which the median is taken.
const ROUNDS: usize = 20;
/// Rounds of the crowded case beside none and one: the difference is small.
const GROWTH_ROUNDS: usize = 60;
/// Attached pods in the crowded case, with two ports each.
const CROWD: u16 = 250;
/// The project's goals for the ratios to the reference: ADD, DEL.
const GOALS: [f64; 2] = [0.045, 0.12];

/// One of the two compared sides, on a node of its own. Its plugins are called one after the other, as a
/// runtime does.
struct Side {
    node: Node,
    chain: Vec<Value>,
}

impl Side {
    fn new(bridge: &str, ipam: &str, chained: Option<Value>) -> Side {
        let mut first = json!({
            "type": bridge, "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
            "ipam": {"type": ipam, "subnet": "10.1.0.0/16"},
        });
        if chained.is_none() {
            first["capabilities"] = json!({"portMappings": true});
        }
        Side { node: Node::new("bench"), chain: std::iter::once(first).chain(chained).collect() }
    }

    /// A verb for a pod whose two host ports follow from its number.
    fn call(&self, verb: &str, pod: &Pod, number: u16, conf: &Value, previous: Option<&Value>) -> Call<'_> {
        let port = |i| 20000 + 2 * number + i;
        let ports = json!([
            {"hostPort": port(0), "containerPort": 80, "protocol": "tcp"},
            {"hostPort": port(1), "containerPort": 53, "protocol": "udp"},
        ]);
        let mut plugin = self.node.plugin(&self.node.list("bench", std::slice::from_ref(conf)));
        if let Some(previous) = previous {
            plugin = plugin.with("prevResult", previous.clone());
        }
        plugin.call(verb, &pod.eth0().capabilities(json!({"portMappings": ports})))
    }

    fn add(&self, pod: &Pod, number: u16) -> Duration {
        let (mut total, mut result) = (Duration::ZERO, None);
        for conf in &self.chain {
            let (time, answer) = self.run(&self.call("ADD", pod, number, conf, result.as_ref()));
            total += time;
            result = Some(serde_json::from_slice(&answer).unwrap());
        }
        total
    }

    fn del(&self, pod: &Pod, number: u16) -> Duration {
        let calls = self.chain.iter().rev().map(|conf| self.call("DEL", pod, number, conf, None));
        calls.map(|call| self.run(&call).0).sum()
    }

    fn run(&self, call: &Call<'_>) -> (Duration, Vec<u8>) {
        self.node.enter(|| {
            let mut command = call.bare_command();
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let start = Instant::now();
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(call.input()).unwrap();
            let outcome = child.wait_with_output().unwrap();
            let time = start.elapsed();
            assert!(outcome.status.success(), "{}", call.run());
            (time, outcome.stdout)
        })
    }
}

fn main() {
    println!("theirs: {} with ipMasq, {}", peer("bridge").display(), peer("portmap").display());
    println!("ours:   {}", plugin("vlan-bridge").display());
    let portmap = json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}});
    let theirs = Side::new("bridge", "host-local", Some(portmap));
    let [ours, nobody, alone] = [0, 1, 2].map(|_| Side::new("vlan-bridge", "vlan-bridge-ipam", None));
    let sides = [&theirs, &ours];
    let empty = measure(sides);
    let crowds = [0, 1].map(|_| (0..CROWD).map(|_| Pod::new()).collect::<Vec<_>>());
    for (side, crowd) in sides.iter().zip(&crowds) {
        for (number, pod) in (1..).zip(crowd) {
            side.add(pod, number);
        }
    }
    let crowded = measure(sides);
    println!(
        "\n{:34} {:>11} {:>11} {:>7} {:>6}",
        "median, two ports a pod", "theirs", "ours", "ratio", "goal"
    );
    for (what, medians) in [("empty node", &empty), ("250 pods, 500 ports there", &crowded)] {
        for (i, verb) in ["ADD", "DEL"].into_iter().enumerate() {
            let [theirs, ours] = medians.map(|side| side[i]);
            let (name, ratio) = (format!("{verb}, {what}"), ours / theirs);
            println!("{name:34} {theirs:8.2} ms {ours:8.2} ms {ratio:7.3} {:6.3}", GOALS[i]);
        }
    }
    let first = Pod::new();
    alone.add(&first, 1);
    let sides = [&nobody, &alone, &ours];
    let table = growth(GROWTH_ROUNDS, sides.map(|side| &*side.node), |side, verb, pod| {
        if verb == "ADD" { sides[side].add(pod, 0) } else { sides[side].del(pod, 0) }
    });
    println!("\n{table}");
    drop(crowds);
    connections();
}

/// Medians in milliseconds of each side's ADD and DEL of one more pod, the two sides in turn.
fn measure(sides: [&Side; 2]) -> [[f64; 2]; 2] {
    let pods = [Pod::new(), Pod::new()];
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    // The first round finds no bridge and cold caches: it does not count.
    for round in 0..=ROUNDS {
        for (i, side) in sides.into_iter().enumerate() {
            let taken = [side.add(&pods[i], 0), side.del(&pods[i], 0)];
            for (times, time) in times[i].iter_mut().zip(taken).filter(|_| round > 0) {
                times.push(time.as_secs_f64() * 1000.0);
            }
        }
    }
    times.map(|side| side.map(median))
}

/// The path from a client to a pod with a server.
#[derive(Clone, Copy)]
enum Way {
    /// From a machine on the node's segment with a route to the pod. The node has no rule.
    Routed,
    /// The same machine, by a host port.
    HostPort,
    /// From a pod of the same bridge with an uplink, by the bridge alone.
    Bridged,
    /// The same pod, by a service that the node leads to the other.
    Service,
}

/// A client and where it connects to, and a pod that serves.
struct Path {
    /// A namespace that no plugin attached plays the machine.
    client: Pod,
    to: SocketAddr,
    server: Pod,
    /// The interface that it goes through.
    _through: (Node, Option<Namespace>),
}

const SERVED: u16 = 80;
const MAPPED: u16 = 8080;

impl Path {
    fn new(way: Way) -> Path {
        match way {
            Way::Routed => Path::from_machine(false),
            Way::HostPort => Path::from_machine(true),
            Way::Bridged => Path::from_pod(false),
            Way::Service => Path::from_pod(true),
        }
    }

    fn from_machine(host_port: bool) -> Path {
        let (client, node, server) = (Pod::new(), Node::new("node"), Pod::new());
        client.ip(&format!("link add port type veth peer name nic0 netns {}", node.name()));
        client.ip("link set port up\naddr add 192.0.2.9/24 dev port\nroute add 10.1.0.0/16 via 192.0.2.1");
        node.ip("link set nic0 up\naddr add 192.0.2.1/24 dev nic0");
        let mut conf = json!({
            "type": "vlan-bridge", "bridge": "cni0", "isDefaultGateway": true,
            "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.1.0.0/16"},
        });
        if host_port {
            conf["capabilities"] = json!({"portMappings": true});
            conf["ipMasq"] = json!(true);
        }
        let ports = json!({"portMappings": [{"hostPort": MAPPED, "containerPort": SERVED}]});
        let own = given(&node, &conf, &server.eth0().capabilities(ports));
        let to: (IpAddr, u16) = if host_port { ([192, 0, 2, 1].into(), MAPPED) } else { (own, SERVED) };
        Path { client, to: to.into(), server, _through: (node, None) }
    }

    fn from_pod(service: bool) -> Path {
        let (site, client, server) = (Site::new(), Pod::new(), Pod::new());
        site.give_node_its_own_network();
        let mut conf = site.conf();
        if service {
            conf["serviceCIDRs"] = json!(["10.96.0.0/12"]);
        }
        let own = given(&site.node, &conf, &server.eth0());
        given(&site.node, &conf, &client.eth0());
        // A rule of kube-proxy.
        site.node.nft(&format!(
            "table ip proxy {{\n chain pre {{\n type nat hook prerouting priority -100;\n ip daddr 10.96.0.1 dnat to {own}\n }}\n}}"
        ));
        let to: (IpAddr, u16) = (if service { [10, 96, 0, 1].into() } else { own }, SERVED);
        Path { client, to: to.into(), server, _through: (site.node, Some(site.router)) }
    }

    /// Serves one connection in the pod.
    fn serve(&self, serve: impl FnOnce(TcpStream) + Send + 'static) -> JoinHandle<()> {
        let listener = self.server.enter(|| TcpListener::bind(("0.0.0.0", SERVED)).unwrap());
        std::thread::spawn(move || serve(listener.accept().unwrap().0))
    }

    fn connect(&self) -> TcpStream {
        let stream = self.client.enter(|| TcpStream::connect(self.to).unwrap());
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Gbit/s from the client to the pod.
    fn throughput(&self) -> f64 {
        const TIME: Duration = Duration::from_millis(500);
        let server = self.serve(|mut stream| {
            let mut buffer = vec![0; 1 << 18];
            while stream.read(&mut buffer).unwrap() > 0 {}
        });
        let mut stream = self.connect();
        let (chunk, start, mut sent) = (vec![0; 1 << 17], Instant::now(), 0);
        while start.elapsed() < TIME {
            stream.write_all(&chunk).unwrap();
            sent += chunk.len();
        }
        let time = start.elapsed();
        drop(stream);
        server.join().unwrap();
        sent as f64 * 8.0 / time.as_secs_f64() / 1e9
    }

    /// Microseconds for one byte there and back.
    fn round_trip(&self) -> f64 {
        const TRIPS: usize = 2000;
        let server = self.serve(|mut stream| {
            stream.set_nodelay(true).unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() > 0 {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut stream = self.connect();
        let mut times = Vec::new();
        for _ in 0..TRIPS {
            let start = Instant::now();
            stream.write_all(&[7]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        drop(stream);
        server.join().unwrap();
        median(times)
    }

    /// Microseconds until a connection is established.
    fn connection(&self) -> f64 {
        let server = self.serve(|mut stream| drop(stream.read(&mut [0])));
        let start = Instant::now();
        let stream = self.connect();
        let time = start.elapsed();
        drop(stream);
        server.join().unwrap();
        time.as_secs_f64() * 1e6
    }
}

/// Attaches a pod and returns its address.
fn given(node: &Node, conf: &Value, attachment: &Attachment) -> IpAddr {
    let plugin = node.plugin(&node.list("bench", std::slice::from_ref(conf)));
    plugin.add(attachment).result().ips[0].address.addr()
}

/// A connection by a host port and one by a service. Each is compared with a connection of the same two
/// machines without a rule.
fn connections() {
    compare("machine to pod", "host port", [Way::Routed, Way::HostPort]);
    compare("pod to pod", "service", [Way::Bridged, Way::Service]);
}

fn compare(who: &str, how: &str, ways: [Way; 2]) {
    const RUNS: usize = 15;
    let paths = ways.map(Path::new);
    println!("\n{:34} {:>14} {how:>14} {:>7}", format!("median, {who}"), "veths, no rule", "loss");
    type Measure = fn(&Path) -> f64;
    let measures: [(&str, Measure, &str, bool); 3] = [
        ("TCP throughput", Path::throughput, "Gbit/s", true),
        ("TCP round trip of a byte", Path::round_trip, "us", false),
        ("TCP connection", Path::connection, "us", false),
    ];
    for (what, measure, unit, more_is_better) in measures {
        let mut values: [Vec<f64>; 2] = Default::default();
        for run in 0..=RUNS {
            for (path, values) in paths.iter().zip(&mut values) {
                let value = measure(path);
                values.extend((run > 0).then_some(value));
            }
        }
        let [bare, ruled] = values.map(median);
        let loss = if more_is_better { 1.0 - ruled / bare } else { ruled / bare - 1.0 };
        let shown = |value: f64| format!("{value:.2} {unit}");
        println!("{what:34} {:>14} {:>14} {:6.1}%", shown(bare), shown(ruled), loss * 100.0);
    }
}
