//! What pods that are there cost the next one: the kernel's part of it, and how it is told.

use crate::{Namespace, Pod, poll};
use std::process::Command;
use std::time::{Duration, Instant};

/// Times of the same thing in milliseconds, with one pod there and in a crowd, in turn.
#[derive(Debug)]
struct Growth {
    what: String,
    times: [Vec<f64>; 2],
}

impl Growth {
    /// Nothing measured yet.
    fn new(what: impl Into<String>) -> Growth {
        Growth { what: what.into(), times: Default::default() }
    }

    /// One time more: of the node with one pod (0) or of the crowded one (1).
    fn push(&mut self, side: usize, time: Duration) {
        self.times[side].push(time.as_secs_f64() * 1000.0);
    }

    fn medians(&self) -> [f64; 2] {
        [0, 1].map(|side| {
            let mut times = self.times[side].clone();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [one, crowded] = self.medians();
        let (ratio, more) = (crowded / one, crowded - one);
        write!(f, "{:34} {one:8.2} ms {crowded:8.2} ms {ratio:7.2} {more:8.2} ms", self.what)
    }
}

/// Measures, in turn on a node with one pod and on a crowded one, ADD and DEL of one pod more by `call`, and what the kernel alone takes
/// for a port more on their bridge `cni0`, and returns the table. DEL waits until the pod has announced itself for the first time, a
/// tick after its ADD: every pod there gets a copy.
pub fn growth(
    rounds: usize,
    nodes: [&Namespace; 2],
    pods: &[Pod; 2],
    call: impl Fn(usize, &str, &Pod) -> Duration,
) -> String {
    let verbs = ["ADD", "DEL"];
    let mut of_plugin = verbs.map(|verb| Growth::new(format!("{verb} of ours")));
    let mut of_kernel = ["attach a port with ip alone", "detach it with ip alone"].map(Growth::new);
    // The first round finds cold caches: it does not count.
    for round in 0..=rounds {
        for (side, pod) in pods.iter().enumerate() {
            let added = call(side, verbs[0], pod);
            await_announcement(pod);
            let times = [added, call(side, verbs[1], pod)];
            if round > 0 {
                of_plugin.iter_mut().zip(times).for_each(|(growth, time)| growth.push(side, time));
            }
        }
    }
    for round in 0..=rounds {
        for (side, pod) in pods.iter().enumerate() {
            let times = bare_port(nodes[side], "cni0", pod);
            if round > 0 {
                of_kernel.iter_mut().zip(times).for_each(|(growth, time)| growth.push(side, time));
            }
        }
    }
    let heading = format!(
        "{:34} {:>11} {:>11} {:>7} {:>11}",
        "median, in turn", "one there", "crowded", "ratio", "more"
    );
    let lines = of_plugin.iter().chain(&of_kernel).map(Growth::to_string);
    std::iter::once(heading).chain(lines).collect::<Vec<_>>().join("\n")
}

fn await_announcement(pod: &Pod) {
    poll(Duration::from_secs(5), "the pod announces itself", || {
        let asked = pod.ip_json("-statistics neigh show nud probe");
        asked.as_array().is_some_and(|all| all.iter().any(|entry| entry["probes"].as_u64() >= Some(1)))
    });
}

/// Makes a veth between a pod and `bridge` of the node, with both ends up, and then takes it off and away, all with `ip`. Returns how
/// long it took to come, and to go but for the removal itself, which waits for the kernel's other readers. The starts of `ip`, three
/// and one, are in it. One at a time, as pods come: the second of two would find the kernel's lists in the processor's cache.
fn bare_port(node: &Namespace, bridge: &str, pod: &Pod) -> [Duration; 2] {
    let start = Instant::now();
    ip(node, &format!("link add bare0 type veth peer name bare0 netns {}", pod.name()));
    ip(node, &format!("link set bare0 master {bridge} addrgenmode none up"));
    ip(pod, "link set bare0 up");
    let attached = start.elapsed();
    let start = Instant::now();
    ip(node, "link set bare0 down nomaster");
    let detached = start.elapsed();
    ip(node, "link del bare0");
    [attached, detached]
}

/// Nothing but the program itself is timed.
fn ip(namespace: &Namespace, line: &str) {
    let mut command = Command::new("ip");
    command.args(["-n", namespace.name()]).args(line.split(' '));
    let status = command.status().unwrap_or_else(|error| panic!("cannot run ip: {error}"));
    assert!(status.success(), "ip {line}: {status}");
}
