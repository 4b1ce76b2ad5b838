//! What `cargo xtask bench agent` runs: what the agent costs on a node with pods, and how soon it restores
//! what other programs change.
//!
//! Each time is taken with an agent of its own, because one that restores the same thing again and again
//! leaves it alone.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it reports to a person, and fails like a test"
)]

use integration::{Agent, Announcements, Call, Ctl, Firewalld, Pod, Site, median, median_ms, pause, product};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Networks of the pods: three with an uplink, and one with NAT.
const NETWORKS: usize = 4;
/// Pods whose rules are timed, and all pods.
const FEW: usize = 100;
const ALL: usize = 250;
/// ADDs at once.
const AT_ONCE: usize = 25;
/// Measurements of each time, after which the median is taken.
const ROUNDS: usize = 9;
/// Calls that count themselves: the difference is small.
const COUNTED: usize = 3000;
/// How long the idle agent is watched.
const IDLE: Duration = Duration::from_secs(60);
/// Pairs of links that another program makes, changes and deletes on the node, and how often it changes them.
const PAIRS: usize = 2000;
const CHANGES: usize = 10;
/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks at the node.
const LOOK: Duration = Duration::from_millis(1);

/// The goals: MiB, percent of a CPU, and seconds.
const MEMORY_GOAL: f64 = 16.0;
const CPU_GOAL: f64 = 0.1;
const START_GOAL: f64 = 1.0;
const RULES_GOAL: f64 = 0.5;
/// Microseconds.
const COUNT_GOAL: f64 = 20.0;
/// Announcements a second.
const STORM_GOAL: f64 = 10_000.0;

fn main() {
    println!("agent: {}", product().join("vlan-bridgectl").display());
    let site = Site::new();
    site.give_node_its_own_network();
    let networks: Vec<Value> = (0..NETWORKS).map(|index| network(&site, index)).collect();
    let ctl = Ctl::new(&site.node);
    let pods: Vec<Pod> = (0..ALL).map(|_| Pod::new()).collect();
    println!("\n{:54} {:>15} {:>16}", "", "figure", "goal");

    attach(&site, &networks, &pods[..FEW]);
    let (looks, flushes): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| start_and_flush(&site, &ctl)).unzip();
    row(&format!("from exec to the first look, {FEW} pods"), median(looks), START_GOAL, "s");
    row(&format!("the rules of {FEW} pods after nft flush ruleset"), median(flushes), RULES_GOAL, "s");

    attach(&site, &networks, &pods[FEW..]);
    let (looks, flushes): (Vec<f64>, Vec<f64>) = (0..ROUNDS).map(|_| start_and_flush(&site, &ctl)).unzip();
    row(&format!("from exec to the first look, {ALL} pods"), median(looks), START_GOAL, "s");
    row(&format!("the rules of {ALL} pods after nft flush ruleset"), median(flushes), RULES_GOAL, "s");

    let agent = Agent::start(&ctl, "");
    let (before, begun) = (agent.cpu(), Instant::now());
    pause(IDLE);
    let share = (agent.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    row(&format!("CPU of an idle agent, {} s", IDLE.as_secs()), share * 100.0, CPU_GOAL, "%");
    row(&format!("resident memory, {ALL} pods, {NETWORKS} networks"), resident(&agent), MEMORY_GOAL, "MiB");
    storm(&site, &agent);
    let reloads = (0..ROUNDS).map(|_| reload_firewalld()).collect();
    row("a rule that firewall-cmd --reload flushed is gone for", median(reloads), RULES_GOAL, "s");
    row("a call that counts itself takes longer by", counting(), COUNT_GOAL, "µs");
}

/// How long our rule in iptables' chain FORWARD is gone when a firewalld reloads, in seconds.
fn reload_firewalld() -> f64 {
    let (site, pod) = (Site::new(), Pod::new());
    let node = &site.node;
    node.run("iptables -P FORWARD DROP").expect_ok();
    let list = network(&site, NETWORKS - 1);
    node.plugin(&list).add(&pod.eth0()).expect_ok();
    let firewalld = Firewalld::start(node);
    let ctl = Ctl::new(node);
    let agent = Agent::start(&ctl, "");
    // It is the only one there.
    let is_gone = || !node.run("nft list chain ip filter FORWARD").expect_ok().stdout.contains("accept");
    assert!(!is_gone(), "the agent has restored what the start of firewalld flushed");
    let restored = || agent.reports().matches("chain FORWARD of table ip filter drops").count();
    let (before, flushed) = (restored(), Cell::new(None));
    std::thread::scope(|scope| {
        scope.spawn(|| firewalld.cmd("--reload").expect_ok());
        seconds_until(Instant::now(), "the restored rule", || {
            let gone = is_gone();
            if gone && flushed.get().is_none() {
                flushed.set(Some(Instant::now()));
            }
            !gone && restored() > before
        });
        // On a machine where a look takes longer than that, the flush may be between two looks.
        flushed.get().map_or(0.0, |at| at.elapsed().as_secs_f64())
    })
}

/// How much longer a call takes on a node whose agent serves metrics, in microseconds. The call is VERSION,
/// which does nothing else. Calls on that node and on one without an agent alternate.
fn counting() -> f64 {
    let sites = [Site::new(), Site::new()];
    let lists = sites.each_ref().map(Site::list);
    let ctl = Ctl::new(&sites[1].node);
    let _agent = Agent::start(&ctl, "--metrics 127.0.0.1:9470");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..COUNTED {
        for ((site, list), times) in sites.iter().zip(&lists).zip(&mut times) {
            let call = [site.node.plugin(list).call_without_attachment("VERSION")];
            times.push(site.node.enter(|| Call::time_all(&call)));
        }
    }
    let [without, with] = times.each_ref().map(|times| median_ms(times));
    (with - without) * 1000.0
}

fn row(what: &str, figure: f64, goal: f64, unit: &str) {
    println!("{what:54} {:>15} {:>16}", format!("{figure:.3} {unit}"), format!("{goal} {unit}"));
}

/// The list of a network. Makes its uplink.
fn network(site: &Site, index: usize) -> Value {
    let subnet = format!("10.{}.0.0/16", 60 + index);
    let ipam = json!({"type": "vlan-bridge-ipam", "subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}]});
    let mut conf = json!({"type": "vlan-bridge", "bridge": format!("br{index}"), "ipam": ipam});
    if index + 1 == NETWORKS {
        conf["isDefaultGateway"] = json!(true);
        conf["ipMasq"] = json!(true);
    } else {
        let node = site.node.name();
        site.router.ip(&format!("link add to{index} type veth peer name up{index} netns {node}"));
        site.router.ip(&format!("link set to{index} up"));
        site.node.ip(&format!("link set up{index} up"));
        conf["uplink"] = json!({"master": format!("up{index}")});
    }
    site.node.list(&format!("net{index}"), &[conf])
}

/// Attaches pods to the networks in turn.
fn attach(site: &Site, networks: &[Value], pods: &[Pod]) {
    let calls: Vec<Call<'_>> = pods
        .iter()
        .zip(networks.iter().cycle())
        .map(|(pod, list)| site.node.plugin(list).call("ADD", &pod.eth0()))
        .collect();
    for some in calls.chunks(AT_ONCE) {
        site.node.enter(|| Call::time_all(some));
    }
}

/// Starts an agent, and flushes the rule set. Returns the seconds until its first look has ended, and until
/// all rules are back.
fn start_and_flush(site: &Site, ctl: &Ctl<'_>) -> (f64, f64) {
    let rules = || rules(site);
    let meant = rules();
    let begun = Instant::now();
    let agent = Agent::begin(ctl, "");
    let looked = seconds_until(begun, "the first look", || agent.has_looked());
    let begun = Instant::now();
    site.node.nft("flush ruleset");
    assert_ne!(rules(), meant, "the rules are flushed");
    let restored = seconds_until(begun, "all rules", || rules() == meant);
    agent.end();
    (looked, restored)
}

/// The words of all rules, in an order of their own: the order of tables and chains says nothing.
fn rules(site: &Site) -> Vec<String> {
    let listed = site.node.run("nft list ruleset").expect_ok().stdout;
    let mut words: Vec<String> = listed.split([' ', '\n', '\t', ',']).map(str::to_owned).collect();
    words.retain(|word| !word.is_empty());
    words.sort();
    words
}

fn seconds_until(begun: Instant, what: &str, condition: impl Fn() -> bool) -> f64 {
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain: {what}");
        pause(LOOK);
    }
    begun.elapsed().as_secs_f64()
}

/// Another program makes, changes and deletes links of the node, and flushes the rules on the way. The kernel
/// makes and deletes links slower than it changes them, so each is a figure of its own.
fn storm(site: &Site, agent: &Agent) {
    let meant = rules(site);
    let before = resident(agent);
    let pair = |i| format!("link add storm{i} group 7 type veth peer name calm{i}");
    let lines: Vec<String> = (0..PAIRS).map(pair).collect();
    let made = announced_a_second(site, || {
        site.node.ip(&lines[..PAIRS / 2].join("\n"));
        site.node.nft("flush ruleset");
        site.node.ip(&lines[PAIRS / 2..].join("\n"));
    });
    let mtus = [1400, 1500].iter().cycle().take(CHANGES);
    let changes: Vec<String> = mtus.map(|mtu| format!("link set group 7 mtu {mtu}")).collect();
    let changed = announced_a_second(site, || {
        site.node.ip(&changes.join("\n"));
    });
    site.node.ip("link del group 7");
    let calm = Instant::now();
    let restored = seconds_until(calm, "all rules", || rules(site) == meant);
    println!("{:54} {made:>12.0} /s", format!("announcements a second, {PAIRS} veths are made"));
    row(&format!("announcements a second, {PAIRS} veths change"), changed, STORM_GOAL, "/s");
    row("resident memory before", before, MEMORY_GOAL, "MiB");
    row("resident memory after", resident(agent), MEMORY_GOAL, "MiB");
    row("the most that was resident", agent.memory("VmHWM") / 1024.0, MEMORY_GOAL, "MiB");
    row("rules that were flushed in it are back after its end", restored, RULES_GOAL, "s");
}

/// How many announcements a second the kernel makes meanwhile, to a listener that loses none.
fn announced_a_second(site: &Site, act: impl FnOnce()) -> f64 {
    let announcements = Announcements::of(&site.node);
    let begun = Instant::now();
    act();
    let took = begun.elapsed().as_secs_f64();
    announcements.count() as f64 / took
}

/// In MiB.
fn resident(agent: &Agent) -> f64 {
    agent.memory("VmRSS") / 1024.0
}
