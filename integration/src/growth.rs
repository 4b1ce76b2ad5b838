//! What pods that are there cost the next one: the kernel's part of it, and how it is told.

use crate::{Namespace, Pod, poll};
use std::process::Command;
use std::time::{Duration, Instant};

/// Times of the same thing, on three nodes in turn: without a pod, with one, and in a crowd.
#[derive(Debug)]
struct Growth {
    what: &'static str,
    times: [Vec<Duration>; 3],
}

impl Growth {
    fn new(what: &'static str) -> Growth {
        Growth { what, times: Default::default() }
    }

    fn push(&mut self, node: usize, time: Duration) {
        self.times[node].push(time);
    }
}

/// The median of what was measured; panics if that is nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [none, one, crowd] = self.times.each_ref().map(|times| median_ms(times));
        let (to_none, to_one) = (crowd / none, crowd / one);
        write!(f, "{:28} {none:8.2} ms {one:8.2} ms {crowd:8.2} ms {to_none:8.2} {to_one:8.2}", self.what)
    }
}

/// The median of times, in milliseconds; panics if there are none.
pub fn median_ms(times: &[Duration]) -> f64 {
    median(times.iter().map(|time| time.as_secs_f64() * 1000.0).collect())
}

/// Measures ADD and DEL of one pod more by `call`, in turn on nodes without a pod, with one, and with a
/// crowd, and beside them what the kernel alone takes for a port more on their bridge `cni0`, and returns the
/// table. DEL waits until the pod has announced itself for the first time, a tick after its ADD: every pod
/// there gets a copy.
pub fn growth(rounds: usize, nodes: [&Namespace; 3], call: impl Fn(usize, &str, &Pod) -> Duration) -> String {
    let pods = [Pod::new(), Pod::new(), Pod::new()];
    let mut of_plugin = ["ADD of ours", "DEL of ours"].map(Growth::new);
    let mut of_kernel = ["attach a port with ip alone", "detach it with ip alone"].map(Growth::new);
    // The first round finds cold caches: it does not count.
    for round in 0..=rounds {
        for (node, pod) in pods.iter().enumerate() {
            let added = call(node, "ADD", pod);
            await_announcement(pod);
            let times = [added, call(node, "DEL", pod)];
            if round > 0 {
                of_plugin.iter_mut().zip(times).for_each(|(growth, time)| growth.push(node, time));
            }
        }
    }
    for round in 0..=rounds {
        for (node, pod) in pods.iter().enumerate() {
            let times = bare_port(nodes[node], "cni0", pod);
            if round > 0 {
                of_kernel.iter_mut().zip(times).for_each(|(growth, time)| growth.push(node, time));
            }
        }
    }
    let heading = format!(
        "{:28} {:>11} {:>11} {:>11} {:>8} {:>8}",
        "median of one more, in turn", "none there", "1 there", "crowd there", "to none", "to 1"
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

/// Makes a veth between a pod and `bridge` of the node, with both ends up, and then takes it off and away,
/// all with `ip`. Returns how long it took to come, and to go but for the removal itself, which waits for the
/// kernel's other readers. The starts of `ip`, three and one, are in it. One at a time, as pods come: the
/// second of two would find the kernel's lists in the processor's cache.
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
