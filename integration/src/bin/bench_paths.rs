//! What `cargo xtask bench paths` runs: NAT mode with two host ports a pod, against the reference's bridge with ipMasq and portmap,
//! and what a connection to a host port loses against one to a pod on a node without any rule.
//!
//! Runs alternate between the contestants, so that whatever else the machine does falls on all. A call is timed from the
//! start of the process to its end, with the node's namespace entered before the clock starts.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it reports to a person, and fails like a test"
)]

use integration::{Call, Namespace, Node, Pod, peer, plugin};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Runs of each kind, after which the median is taken.
const ROUNDS: usize = 20;
/// Pods already there in the crowded case, with two ports each.
const CROWD: u16 = 250;
/// Ratios to theirs to reach, as the project has set them: ADD, DEL.
const GOALS: [f64; 2] = [0.06, 0.12];

/// One of the two contestants, on a node of its own: plugins that are called one after the other, as a runtime does.
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
    let sides = [
        Side::new("bridge", "host-local", Some(portmap)),
        Side::new("vlan-bridge", "vlan-bridge-ipam", None),
    ];
    let empty = measure(&sides);
    let crowds = [0, 1].map(|_| (0..CROWD).map(|_| Pod::new()).collect::<Vec<_>>());
    for (side, crowd) in sides.iter().zip(&crowds) {
        for (number, pod) in (1..).zip(crowd) {
            side.add(pod, number);
        }
    }
    let crowded = measure(&sides);
    println!(
        "\n{:34} {:>11} {:>11} {:>7} {:>6}",
        "median, two ports a pod", "theirs", "ours", "ratio", "goal"
    );
    for (what, medians) in [("empty node", &empty), ("250 pods, 500 ports there", &crowded)] {
        for (i, verb) in ["ADD", "DEL"].into_iter().enumerate() {
            let [theirs, ours] = medians.map(|side| side[i]);
            let (name, ratio) = (format!("{verb}, {what}"), ours / theirs);
            println!("{name:34} {theirs:8.2} ms {ours:8.2} ms {ratio:7.3} {:6.2}", GOALS[i]);
        }
    }
    for (i, verb) in ["ADD", "DEL"].into_iter().enumerate() {
        println!(
            "{verb} of ours with {CROWD} pods there takes {:.2} of the time with none",
            crowded[1][i] / empty[1][i]
        );
    }
    drop(crowds);
    connections();
}

/// Medians in milliseconds of each side's ADD and DEL of one more pod.
fn measure(sides: &[Side; 2]) -> [[f64; 2]; 2] {
    let pods = [Pod::new(), Pod::new()];
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    // The first round finds no bridge and cold caches: it does not count.
    for round in 0..=ROUNDS {
        for (i, side) in sides.iter().enumerate() {
            let taken = [side.add(&pods[i], 0), side.del(&pods[i], 0)];
            for (times, time) in times[i].iter_mut().zip(taken).filter(|_| round > 0) {
                times.push(time.as_secs_f64() * 1000.0);
            }
        }
    }
    times.map(|side| side.map(median))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A machine on a node's segment, and a pod of that node with a server.
struct Segment {
    machine: Namespace,
    to: SocketAddr,
    _parts: (Node, Pod),
}

const SERVED: u16 = 80;
const MAPPED: u16 = 8080;

impl Segment {
    /// With a host port the machine connects to the node. Without, it knows a way to the pod, and the node has no rule.
    fn new(host_port: bool) -> Segment {
        let (machine, node, pod) = (Namespace::new("machine"), Node::new("node"), Pod::new());
        machine.ip(&format!("link add port type veth peer name nic0 netns {}", node.name()));
        machine.ip("link set port up\naddr add 192.0.2.9/24 dev port\nroute add 10.1.0.0/16 via 192.0.2.1");
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
        let eth0 = pod.eth0().capabilities(ports);
        let result = node.plugin(&node.list("bench", &[conf])).add(&eth0).expect_ok().json();
        let own = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
        let to: (IpAddr, u16) =
            if host_port { ([192, 0, 2, 1].into(), MAPPED) } else { (own.parse().unwrap(), SERVED) };
        Segment { machine, to: to.into(), _parts: (node, pod) }
    }

    /// Serves one connection in the pod.
    fn serve(&self, serve: impl FnOnce(TcpStream) + Send + 'static) -> JoinHandle<()> {
        let listener = self._parts.1.enter(|| TcpListener::bind(("0.0.0.0", SERVED)).unwrap());
        std::thread::spawn(move || serve(listener.accept().unwrap().0))
    }

    fn connect(&self) -> TcpStream {
        let stream = self.machine.enter(|| TcpStream::connect(self.to).unwrap());
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Gbit/s from the machine to the pod.
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

/// A connection to a host port beside one that goes the same way without a rule.
fn connections() {
    const RUNS: usize = 15;
    let segments = [Segment::new(false), Segment::new(true)];
    println!("\n{:34} {:>14} {:>14} {:>7}", "median, machine to pod", "veths, no rule", "host port", "loss");
    type Measure = fn(&Segment) -> f64;
    let measures: [(&str, Measure, &str, bool); 3] = [
        ("TCP throughput", Segment::throughput, "Gbit/s", true),
        ("TCP round trip of a byte", Segment::round_trip, "us", false),
        ("TCP connection", Segment::connection, "us", false),
    ];
    for (what, measure, unit, more_is_better) in measures {
        let mut values: [Vec<f64>; 2] = Default::default();
        for run in 0..=RUNS {
            for (segment, values) in segments.iter().zip(&mut values) {
                let value = measure(segment);
                values.extend((run > 0).then_some(value));
            }
        }
        let [bare, mapped] = values.map(median);
        let loss = if more_is_better { 1.0 - mapped / bare } else { mapped / bare - 1.0 };
        let shown = |value: f64| format!("{value:.2} {unit}");
        println!("{what:34} {:>14} {:>14} {:6.1}%", shown(bare), shown(mapped), loss * 100.0);
    }
}
