//! How attached pods slow down the next ADD and DEL, and the kernel's part of that.

use crate::{Namespace, Pod, poll};
use std::process::Command;
use std::time::{Duration, Instant};

/// Times of one operation on three nodes in turn: without a pod, with one, and with many.
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

/// The median of the times. Panics if there are none.
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

/// The median of times, in milliseconds. Panics if there are none.
pub fn median_ms(times: &[Duration]) -> f64 {
    median(times.iter().map(|time| time.as_secs_f64() * 1000.0).collect())
}

/// Measures ADD and DEL of one more pod by `call`, in turn on nodes without a pod, with one, and with many.
/// Also measures the kernel's time for one more port on their bridge `cni0`. Returns the table. DEL waits for
/// the pod's first announcement, a tick after its ADD, because every attached pod gets a copy.
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

/// Makes a veth between a pod and `bridge` of the node, with both ends up, then detaches and deletes it, all
/// with `ip`. Returns the time to make it, and the time to detach it without the deletion, which waits for
/// the kernel's other readers. The times include the starts of `ip`: three and one. One veth is made at a
/// time, as with pods. The second of two would find the kernel's lists in the processor's cache.
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
