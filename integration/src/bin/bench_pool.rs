//! What `cargo xtask bench pool` runs: what shared pools cost with a real etcd, and how soon addresses come.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it reports to a person, and fails like a test"
)]

use integration::{Agent, Ctl, Etcd, Pod, PoolSite, Scrape, median, pause, poll, product};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Nodes that claim at the same time, and how many addresses each of them wants.
const NODES: usize = 50;
const EACH: usize = 20;
/// ADDs that find nothing, of each kind.
const DRY: usize = 60;
const RECALLED: usize = 40;
/// Pods that start one after another, and the pause between two.
const BURST: usize = 110;
const BETWEEN: Duration = Duration::from_millis(50);
/// Networks of the agent whose memory is measured.
const NETWORKS: usize = 10;
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(120);
/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    println!("agent: {}", product().join("vlan-bridgectl").display());
    println!("\n{:66} {:>12} {:>12}", "", "figure", "goal");
    row("1000 claims by 50 nodes, one member of etcd", contend(1, false), "2 s", "s");
    row("1000 claims by 50 nodes, three members, the leader killed", contend(3, true), "10 s", "s");
    dry();
    recalled();
    burst();
    at_rest();
}

/// All nodes wait for a frozen pool, which is then opened. Each address is wanted by somebody.
fn contend(members: usize, kill: bool) -> f64 {
    let site = PoolSite::with_etcd(NODES, Etcd::with_members(members));
    let pool = json!({"slice": null, "pool": {"low": EACH, "high": EACH}});
    let ctls: Vec<Ctl<'_>> = (0..NODES).map(|node| site.ctl(node, &site.list(node, &pool))).collect();
    site.create(&ctls[0], "172.20.60.0-172.20.63.231");
    ctls[0].run("pool freeze vlan136").expect_ok();
    let agents: Vec<Agent> = (0..NODES).map(|node| site.agent(&ctls[node], node)).collect();
    for agent in &agents {
        agent.await_first_look();
    }
    let start = Instant::now();
    ctls[0].run("pool thaw vlan136").expect_ok();
    if kill {
        site.etcd.leader().into_iter().for_each(|leader| site.etcd.kill(leader));
    }
    poll(LIMIT, "all claims", || {
        (0..NODES).map(|node| site.granted(node, "leased").len()).sum::<usize>() == NODES * EACH
    });
    let took = start.elapsed().as_secs_f64();
    let all: BTreeSet<Ipv4Addr> = (0..NODES).flat_map(|node| site.granted(node, "leased")).collect();
    assert_eq!(all.len(), NODES * EACH, "an address was granted twice");
    took
}

/// ADDs that find nothing on their node, while the pool has free addresses.
fn dry() {
    let site = PoolSite::new(1);
    let keys = json!({"slice": null, "conflictDetection": "off", "pool": {"low": 0, "high": 1, "max": 1000, "wait": 20}});
    let list = site.list(0, &keys);
    let ctl = site.ctl(0, &list);
    site.create(&ctl, "172.20.60.0/22");
    let (_agent, metrics) = measured(&site, &ctl);
    let (mut waited, mut found, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    while waited.len() < DRY && pods.len() < 900 {
        let before = dry_adds(&metrics);
        let (pod, took) = timed(&site, 0, &list);
        pods.push(pod);
        if dry_adds(&metrics) > before { waited.push(took) } else { found.push(took) }
    }
    percentiles("ADD that finds nothing, free addresses in the pool", &waited, "p99 50 ms");
    percentiles("ADD that finds an address", &found, "");
}

/// ADDs that find nothing while only another node has idle addresses.
fn recalled() {
    let site = PoolSite::new(2);
    let keys = |low: u32, high: u32, slice: Value| {
        json!({"slice": slice, "conflictDetection": "off",
            "pool": {"low": low, "high": high, "home": "lent", "wait": 30}})
    };
    let lists = [site.list(0, &keys(0, 1, Value::Null)), site.list(1, &keys(0, 1, json!("172.20.60.0/26")))];
    let ctls: Vec<Ctl<'_>> = (0..2).map(|node| site.ctl(node, &lists[node])).collect();
    site.create(&ctls[0], "172.20.60.0-172.20.60.63");
    let _other = site.agent(&ctls[1], 1);
    poll(LIMIT, "the other node's slice", || site.granted(1, "home").len() == 64);
    let (_agent, metrics) = measured(&site, &ctls[0]);
    let (mut waited, mut pods) = (Vec::new(), Vec::new());
    while pods.len() < RECALLED {
        let before = dry_adds(&metrics);
        let (pod, took) = timed(&site, 0, &lists[0]);
        pods.push(pod);
        if dry_adds(&metrics) > before {
            waited.push(took);
        }
    }
    percentiles("ADD that finds nothing, idle addresses on another node", &waited, "p99 2000 ms");
}

/// Pods that start at 20 a second.
fn burst() {
    let site = PoolSite::new(1);
    let list = site.list(0, &json!({"slice": null, "conflictDetection": "off"}));
    let ctl = site.ctl(0, &list);
    site.create(&ctl, "172.20.60.0/22");
    let (_agent, metrics) = measured(&site, &ctl);
    poll(LIMIT, "the stock", || !site.granted(0, "leased").is_empty());
    let before = dry_adds(&metrics);
    let start = Instant::now();
    let mut pods = Vec::new();
    for number in 0..BURST {
        pods.push(timed(&site, 0, &list));
        pause((BETWEEN * (number as u32 + 1)).saturating_sub(start.elapsed()));
    }
    let share = (dry_adds(&metrics) - before) / BURST as f64;
    row("ADDs that need the store, 110 of them at 20/s", share * 100.0, "10 %", "%");
}

/// An agent with ten networks and nothing to do.
fn at_rest() {
    let site = PoolSite::new(1);
    let lists: Vec<Value> = (0..NETWORKS)
        .map(|number| {
            let patch = json!({"slice": null, "subnet": format!("10.{number}.0.0/16"), "gateway": format!("10.{number}.0.1"),
                "pool": {"name": format!("pool{number}")}});
            let mut list = site.list(0, &patch);
            list["name"] = json!(format!("net{number}"));
            list["plugins"][0]["bridge"] = json!(format!("br{number}"));
            list
        })
        .collect();
    let ctl = site.ctl(0, &lists[0]);
    for (number, list) in lists.iter().enumerate() {
        ctl.write(&format!("/etc/cni/net.d/10-vlan136-{number}.conflist"), &list.to_string());
        ctl.run(&format!("pool create pool{number} --range 10.{number}.0.0/22 --network /etc/cni/net.d/10-vlan136-{number}.conflist"))
            .expect_ok();
    }
    let (agent, metrics) = measured(&site, &ctl);
    let granted = |number: usize| {
        let file = format!(".vlan-bridge/net{number}/grants");
        std::fs::read_to_string(site.nodes[0].data_dir().join(file)).is_ok_and(|text| text.contains("-10."))
    };
    poll(LIMIT, "the stock of each network", || (0..NETWORKS).all(granted));
    // The first minute has the looks of the beginning.
    pause(Duration::from_secs(10));
    let requests = |scrape: &Scrape| scrape.value("vlan_bridge_pool_store_requests_total", &[]).unwrap();
    let (before, begun) = (requests(&Scrape::over_unix(&metrics)), Instant::now());
    pause(IDLE);
    let rate = (requests(&Scrape::over_unix(&metrics)) - before) / begun.elapsed().as_secs_f64();
    row("requests to the store by a node at rest, 10 networks", rate, "0.01 /s", "/s");
    row("agent resident, 10 networks", agent.memory("VmRSS") / 1024.0, "24 MiB", "MiB");
}

/// An agent of the first node with metrics, and their socket.
fn measured(site: &PoolSite, ctl: &Ctl<'_>) -> (Agent, PathBuf) {
    let socket = site.nodes[0].folder().path().join("metrics");
    let agent = Agent::start(ctl, &format!("--node node0 --metrics unix:{}", socket.display()));
    (agent, socket)
}

fn dry_adds(metrics: &Path) -> f64 {
    Scrape::over_unix(metrics).value("vlan_bridge_pool_dry_adds_total", &[]).unwrap_or_default()
}

/// A new pod, and how long its ADD took, in milliseconds.
fn timed(site: &PoolSite, node: usize, list: &Value) -> (Pod, f64) {
    let pod = Pod::new();
    let (plugin, eth0) = (site.nodes[node].plugin(list), pod.eth0());
    let start = Instant::now();
    let outcome = plugin.add(&eth0);
    let took = start.elapsed().as_secs_f64() * 1000.0;
    outcome.expect_ok();
    (pod, took)
}

fn percentiles(what: &str, times: &[f64], goal: &str) {
    if times.is_empty() {
        println!("{what:66} {:>12} {goal:>12}", "none");
        return;
    }
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!(
        "{what:66} p50 {:.1}, p99 {:.1} ms of {:<4} {goal:>12}",
        median(times.clone()),
        at(99),
        times.len()
    );
}

fn row(what: &str, figure: f64, goal: &str, unit: &str) {
    println!("{what:66} {:>12} {goal:>12}", format!("{figure:.3} {unit}"));
}
