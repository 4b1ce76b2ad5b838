//! What `cargo xtask bench` runs: our plugins against the reference's, side by side on the same kernel.
//!
//! Both make a plain bridge with addresses out of a /16. Runs alternate between the two, so that whatever
//! else the machine does falls on both. A run is timed from the start of the process to its end, with the
//! node's namespace entered before the clock starts.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it reports to a person, and fails like a test"
)]

use integration::{
    Agent, Call, Ctl, Namespace, Node, Pod, Site, growth, median_ms, pause, peer, plugin, poll,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Runs of each kind, after which the median is taken.
const ROUNDS: usize = 40;
/// Rounds of the crowded case beside none and one: the difference is small.
const GROWTH_ROUNDS: usize = 100;
/// Rounds of [`AT_ONCE`] pods.
const BURSTS: usize = 5;
const AT_ONCE: usize = 50;
/// Attached pods in the crowded case.
const CROWD: usize = 250;

/// Pods that start one by one on a node with an uplink, and the pause between them. The pause is longer than
/// a probe's result is remembered.
const NODE_ROUNDS: usize = 5;
const PAUSE: Duration = Duration::from_secs(15);
/// The allowed ratio of an ADD with uplink, guard and host routes to one on a plain bridge.
const NODE_GOAL: f64 = 1.5;
/// How much longer than without conflict detection an ADD may take where the agent listens.
const AGENT_GOAL: f64 = 1.2;
/// Peak memory in KiB and size of the program in bytes to reach.
const MEMORY_GOAL: u64 = 3 * 1024;
const SIZE_GOAL: u64 = 3_200_000;

/// Announcements of an address end three seconds after its ADD.
const SETTLED: Duration = Duration::from_secs(10);

/// One of the two compared plugins, on a node of its own.
struct Side {
    node: Node,
    list: Value,
    /// What is behind the uplink, if it has one.
    _router: Option<Namespace>,
}

impl Side {
    fn new(bridge: &str, ipam: &str) -> Side {
        let node = Node::new("bench");
        let conf = json!({
            "type": bridge, "bridge": "cni0",
            "ipam": {"type": ipam, "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
        });
        let list = node.list("bench", &[conf]);
        Side { node, list, _router: None }
    }

    /// Our plugin on a node as in production: a bridge with an uplink, a network of the node's own, and the
    /// default settings.
    fn on_uplink(detection: &str) -> Side {
        let site = Site::new();
        site.give_node_its_own_network();
        let mut conf = site.conf();
        conf["ipam"]["conflictDetection"] = json!(detection);
        let list = site.node.list(Site::NETWORK, &[conf]);
        Side { node: site.node, list, _router: Some(site.router) }
    }

    fn call(&self, verb: &str, pod: &Pod) -> Call<'_> {
        self.node.plugin(&self.list).call(verb, &pod.eth0())
    }

    /// Runs a verb for every pod at the same time, and how long that took.
    fn time(&self, verb: &str, pods: &[Pod]) -> Duration {
        let calls: Vec<Call> = pods.iter().map(|pod| self.call(verb, pod)).collect();
        self.node.enter(|| Call::time_all(&calls))
    }

    /// The largest resident set of an ADD and of everything it started, in KiB.
    fn peak_memory(&self, pod: &Pod) -> u64 {
        // A child's peak starts at its parent's size, so it needs a small parent: GNU time. busybox's time
        // shows four times as much, because it mistakes the kernel's kilobytes for pages.
        let outcome = self.call("ADD", pod).run_under(&["time", "-f", "peak=%M"]);
        let peak = outcome.stderr.lines().find_map(|line| line.strip_prefix("peak="));
        peak.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{outcome}"))
    }
}

/// What was measured of two sides, in turn.
struct Row {
    what: String,
    times: [Vec<Duration>; 2],
    /// The project's goal for the ratio of the second to the first.
    goal: f64,
}

impl Row {
    fn new(what: &str, goal: f64) -> Row {
        Row { what: what.to_owned(), times: [Vec::new(), Vec::new()], goal }
    }

    fn medians(&self) -> [f64; 2] {
        self.times.each_ref().map(|times| median_ms(times))
    }

    fn print(&self) {
        let [first, second] = self.medians();
        let (ratio, goal) = (second / first, self.goal);
        println!("{:22} {first:8.2} ms {second:8.2} ms {ratio:7.2} {:>7}", self.what, format!("{goal:.2}"));
    }
}

fn main() {
    let ours = || Side::new("vlan-bridge", "vlan-bridge-ipam");
    let theirs = Side::new("bridge", "host-local");
    let [ours, empty, alone] = [ours(), ours(), ours()];
    let sides = [&theirs, &ours];
    println!("theirs: {}", peer("bridge").display());
    println!("ours:   {}", plugin("vlan-bridge").display());
    println!("kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());

    let mut rows = Vec::new();
    let pods = [0, 1].map(|_| vec![Pod::new()]);
    rows.extend(measure("1 pod", ROUNDS, sides, &pods, [0.17, 0.12]));
    let memory = [0, 1].map(|side| {
        let peak = sides[side].peak_memory(&pods[side][0]);
        sides[side].time("DEL", &pods[side]);
        peak
    });

    let bursts = [0, 1].map(|_| (0..AT_ONCE).map(|_| Pod::new()).collect::<Vec<_>>());
    rows.extend(measure(&format!("{AT_ONCE} at once"), BURSTS, sides, &bursts, [0.18, 0.9]));

    let crowds = [0, 1].map(|_| (0..CROWD).map(|_| Pod::new()).collect::<Vec<_>>());
    for (side, crowd) in sides.iter().zip(&crowds) {
        for some in crowd.chunks(10) {
            side.time("ADD", some);
        }
    }
    let last = crowds[1].last().unwrap();
    poll(SETTLED, "the crowd has announced itself", || {
        last.ip_json("neigh show nud probe").as_array().is_none_or(Vec::is_empty)
    });
    rows.extend(measure(&format!("{CROWD} pods there"), ROUNDS, sides, &pods, [0.25, 0.9]));
    report(&rows, memory);
    let first = [Pod::new()];
    alone.time("ADD", &first);
    let sides = [&empty, &alone, &ours];
    let table = growth(GROWTH_ROUNDS, sides.map(|side| &*side.node), |side, verb, pod| {
        sides[side].time(verb, std::slice::from_ref(pod))
    });
    println!("\n{table}");
    on_an_uplink(&empty);
}

/// The time of an ADD on a node with an uplink, where guard and host routes are the default. It is compared
/// with an ADD on a plain bridge, and measured with conflict detection for one pod at a time, without and
/// with the agent.
fn on_an_uplink(plain: &Side) {
    let unprobed = Side::on_uplink("off");
    let pods = [0, 1].map(|_| vec![Pod::new()]);
    let [add, _] = measure("1 pod", ROUNDS, [plain, &unprobed], &pods, [NODE_GOAL, f64::INFINITY]);
    let [without, with] = add.medians();
    // A call after a pause finds colder caches.
    let paused = median_ms(&one_by_one(&unprobed));
    let probed = median_ms(&one_by_one(&Side::on_uplink("on")));
    let listening = Side::on_uplink("on");
    let first = [Pod::new()];
    // The agent listens where there are pods.
    listening.time("ADD", &first);
    let ctl = Ctl::new(&listening.node);
    let agent = Agent::start(&ctl, "");
    let heard = median_ms(&one_by_one(&listening));
    drop(agent);
    println!("\nmedian ADD of ours, as on a node");
    println!("  plain bridge                                       {without:8.2} ms");
    println!(
        "  uplink, guard, host routes                         {with:8.2} ms, {:.2} times the plain one; goal {NODE_GOAL}",
        with / without
    );
    println!("  the same, a pod each {} s                          {paused:8.2} ms", PAUSE.as_secs());
    println!("    with conflict detection                          {probed:8.2} ms");
    println!(
        "    with conflict detection and the agent            {heard:8.2} ms, {:.2} times without detection; goal {AGENT_GOAL}",
        heard / paused
    );
}

/// The times of ADDs of one pod after the other, with a pause between them.
fn one_by_one(side: &Side) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..=NODE_ROUNDS {
        let pod = [Pod::new()];
        let time = side.time("ADD", &pod);
        side.time("DEL", &pod);
        // The first makes bridge and uplink.
        if round > 0 {
            times.push(time);
        }
        pause(PAUSE);
    }
    times
}

/// ADD and DEL of the same pods, the two sides in turn.
fn measure(what: &str, rounds: usize, sides: [&Side; 2], pods: &[Vec<Pod>; 2], goals: [f64; 2]) -> [Row; 2] {
    let mut rows = [Row::new(&format!("ADD, {what}"), goals[0]), Row::new(&format!("DEL, {what}"), goals[1])];
    // The first round finds no bridge and cold caches: it does not count.
    for round in 0..=rounds {
        for side in [0, 1] {
            let times = ["ADD", "DEL"].map(|verb| sides[side].time(verb, &pods[side]));
            for (row, time) in rows.iter_mut().zip(times).filter(|_| round > 0) {
                row.times[side].push(time);
            }
        }
    }
    rows
}

fn report(rows: &[Row], [theirs, ours]: [u64; 2]) {
    heading("median", ["theirs", "ours"]);
    rows.iter().for_each(Row::print);
    let ratio = ours as f64 / theirs as f64;
    println!("{:22} {theirs:7} KiB {ours:7} KiB {ratio:7.2} {MEMORY_GOAL:>4} KiB", "peak memory of an ADD");
    let size =
        |programs: &[PathBuf]| -> u64 { programs.iter().map(|path| fs::metadata(path).unwrap().len()).sum() };
    // Our two plugins are names of one file.
    let (theirs, ours) = (size(&[peer("bridge"), peer("host-local")]), size(&[plugin("vlan-bridge")]));
    println!(
        "{:22} {:7} KiB {:7} KiB {:7.2} {:>4} KiB",
        "size of both programs",
        theirs / 1024,
        ours / 1024,
        ours as f64 / theirs as f64,
        SIZE_GOAL / 1024
    );
}

fn heading(what: &str, [first, second]: [&str; 2]) {
    println!("\n{what:22} {first:>11} {second:>11} {:>7} {:>7}", "ratio", "goal");
}
