//! `vlan-bridgectl agent --metrics`: the numbers of a node, and clients that behave badly.

use integration::{Agent, Answer, Ctl, Pod, Scrape, Site, connect, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const ADDRESS: &str = "127.0.0.1:9470";

/// A node whose agent serves metrics, over TCP.
fn serve<'a>(ctl: &Ctl<'a>, site: &'a Site) -> Agent {
    site.node.ip("link set lo up");
    Agent::start(ctl, &format!("--metrics {ADDRESS}"))
}

fn scrape(site: &Site) -> Scrape {
    Scrape::over_tcp(&site.node, ADDRESS)
}

/// The file that the plugin counts in.
fn counters(site: &Site) -> PathBuf {
    format!("/run/vlan-bridge/agent/{}/calls-1", site.node.cookie()).into()
}

#[test]
fn each_call_counts_once_by_its_verb_and_outcome() {
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    let plugin = site.node.plugin(&list);
    let agent = serve(&ctl, &site);
    let calls = |verb: &str, outcome: &str| {
        let labels = [format!("verb=\"{verb}\""), format!("outcome=\"{outcome}\"")];
        scrape(&site).value("vlan_bridge_calls_total", &labels.each_ref().map(String::as_str)).unwrap()
    };
    assert_eq!([calls("ADD", "ok"), calls("other", "invalid-environment")], [0.0, 0.0]);
    let result = plugin.add(&pod.eth0()).result();
    plugin.check(&pod.eth0(), &result).expect_ok();
    plugin.clone().with("mtu", json!("wide")).add(&pod.interface("eth1")).error_code();
    // Errors before the plugin's own code.
    plugin.call("ADD", &pod.eth0()).without_env("CNI_NETNS").run().error_code();
    plugin.call("UPDATE", &pod.eth0()).run().error_code();
    plugin.call("ADD", &pod.eth0()).stdin("{").run().error_code();
    plugin.version().expect_ok();
    plugin.del(&pod.eth0()).expect_ok();
    plugin.del(&pod.eth0()).expect_ok();
    let expected = [
        ("ADD", "ok", 1.0),
        ("ADD", "invalid-config", 1.0),
        ("ADD", "invalid-environment", 1.0),
        ("ADD", "decoding-failure", 1.0),
        ("CHECK", "ok", 1.0),
        ("DEL", "ok", 2.0),
        ("VERSION", "ok", 1.0),
        ("other", "invalid-environment", 1.0),
        ("GC", "ok", 0.0),
    ];
    for (verb, outcome, count) in expected {
        assert_eq!(calls(verb, outcome), count, "{verb} {outcome}");
    }
    let all = scrape(&site);
    let value = |name, labels: &[&str]| all.value(name, labels).unwrap();
    assert_eq!(value("vlan_bridge_call_duration_seconds_count", &["verb=\"ADD\""]), 4.0);
    let sum = value("vlan_bridge_call_duration_seconds_sum", &["verb=\"ADD\""]);
    assert!((0.001..20.0).contains(&sum), "{sum} s");
    // The numbers outlive the agent.
    agent.end();
    plugin.del(&pod.eth0()).expect_ok();
    let _agent = serve(&ctl, &site);
    assert_eq!(calls("DEL", "ok"), 3.0);
}

#[test]
fn a_damaged_file_of_counters_fails_no_call() {
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    let (plugin, _agent) = (site.node.plugin(&list), serve(&ctl, &site));
    let path = counters(&site);
    for content in [&b""[..], b"short", &[b'x'; 5000]] {
        fs::write(&path, content).unwrap();
        plugin.add(&pod.eth0()).expect_ok();
        plugin.del(&pod.eth0()).expect_ok();
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    // A scrape makes it again.
    scrape(&site);
    plugin.add(&pod.eth0()).expect_ok();
    assert_eq!(scrape(&site).value("vlan_bridge_calls_total", &[]), Some(1.0));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    plugin.del(&pod.eth0()).expect_ok();
    assert_eq!(scrape(&site).value("vlan_bridge_calls_total", &[]), Some(0.0));
}

#[test]
fn without_metrics_nothing_is_counted_and_nothing_listens() {
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    let listens = || site.node.run("ss -Hltn").expect_ok().stdout;
    serve(&ctl, &site).end();
    assert!(counters(&site).exists());
    let _agent = Agent::start(&ctl, "");
    site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    assert!(!counters(&site).exists());
    assert_eq!(listens(), "");
}

/// The rules of a table, and the elements of its sets and maps, as nft lists them.
fn listed(site: &Site, family: &str, table: &str) -> [f64; 2] {
    let listed = site.node.run(&format!("nft -j list table {family} {table}"));
    let listed = if listed.ok() { listed.json() } else { Value::Null };
    let objects = || listed["nftables"].as_array().into_iter().flatten();
    let sets = objects().filter_map(|object| object.get("set").or_else(|| object.get("map")));
    let elements: usize = sets.map(|set| set["elem"].as_array().map_or(0, Vec::len)).sum();
    [objects().filter(|object| object.get("rule").is_some()).count() as f64, elements as f64]
}

#[test]
fn addresses_rules_and_repairs_are_counted() {
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    let plugin = site.node.plugin(&list);
    plugin.add(&pod.eth0()).expect_ok();
    let agent = serve(&ctl, &site);
    let first = scrape(&site);
    let value = |name: &str, labels: &[&str]| first.value(name, labels);
    let network = format!("network=\"{}\"", Site::NETWORK);
    let addresses = |state: &str| value("vlan_bridge_addresses", &[&network, &format!("state=\"{state}\"")]);
    assert_eq!(["used", "cooling", "free"].map(|state| addresses(state).unwrap()), [1.0, 0.0, 15.0]);
    assert_eq!(value("vlan_bridge_leases_readable", &[&network]), Some(1.0));
    assert_eq!(value("vlan_bridge_uplink_carrier", &["uplink=\"nic0\"", "bridge=\"br136\""]), Some(1.0));
    for (family, table) in
        [("inet", "vlan-bridge-uplinks"), ("bridge", "vlan-bridge"), ("inet", "vlan-bridge")]
    {
        let labels = [format!("family=\"{family}\""), format!("table=\"{table}\"")];
        let labels = labels.each_ref().map(String::as_str);
        let counted = ["rules", "elements"]
            .map(|what| value(&format!("vlan_bridge_nftables_{what}"), &labels).unwrap());
        assert_eq!(counted, listed(&site, family, table), "{family} {table}");
        assert_eq!(counted[0] > 0.0, table == "vlan-bridge-uplinks" || family == "bridge", "{counted:?}");
    }
    assert!(value("vlan_bridge_agent_resident_memory_bytes", &[]).unwrap() > 1e6);
    let repairs =
        |kind: &str| scrape(&site).value("vlan_bridge_repairs_total", &[&format!("kind=\"{kind}\"")]);
    assert_eq!([repairs("boundary"), repairs("port")], [Some(0.0); 2]);
    site.node.nft("flush ruleset");
    poll(SOON, "a repair that is counted", || repairs("boundary") >= Some(1.0));
    assert_eq!(repairs("port"), Some(0.0), "{}", agent.reports());
    let last = scrape(&site);
    let reports = last.value("vlan_bridge_agent_reports_total", &["reason=\"Restored\""]).unwrap();
    assert!(reports >= 1.0, "{}", agent.reports());
    let passes = |of: &Scrape| of.value("vlan_bridge_agent_passes_total", &[]).unwrap();
    assert!(passes(&last) > passes(&first));
    let at = last.value("vlan_bridge_agent_last_pass_timestamp_seconds", &[]).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((0.0..60.0).contains(&(now - at)), "{at} {now}");
}

#[test]
fn a_network_without_a_free_address_is_told() {
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    site.node.hold(Site::NETWORK, Ipv4Addr::new(172, 20, 56, 17), 15);
    let agent = serve(&ctl, &site);
    agent.await_report("network vlan136: no address is free: 172.20.56.16/28: 16 used, ");
    let exhausted =
        scrape(&site).value("vlan_bridge_agent_reports_total", &["reason=\"AddressesExhausted\""]);
    assert_eq!(exhausted, Some(1.0));
    assert_eq!(scrape(&site).value("vlan_bridge_addresses", &["state=\"free\""]), Some(0.0));
}

#[test]
fn only_get_of_metrics_is_answered() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let mut agent = serve(&ctl, &site);
    let status = |method, path| Answer::of(connect(&site.node, ADDRESS), method, path).status().to_owned();
    assert_eq!(status("GET", "/metrics"), "200");
    assert_eq!(status("GET", "/metrics?format=text"), "200");
    assert_eq!(status("POST", "/metrics"), "405");
    assert_eq!(status("GET", "/"), "404");
    assert_eq!(status("GET", &format!("/{}", "a".repeat(20_000))), "431");
    assert!(agent.process().is_alive());
}

#[test]
fn clients_that_are_slow_or_many_hold_up_nobody() {
    const CLIENTS: usize = 200;
    let (site, pod) = (Site::new(), Pod::new());
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    let agent = serve(&ctl, &site);
    // They connect and say nothing, or not all.
    let silent: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(&site.node, ADDRESS)).collect();
    let begun = Instant::now();
    site.node.nft("flush ruleset");
    agent.await_report("restored");
    let repaired = begun.elapsed();
    scrape(&site);
    let answered = begun.elapsed();
    assert!(
        repaired < Duration::from_secs(5) && answered < Duration::from_secs(10),
        "{repaired:?} {answered:?}"
    );
    drop(silent);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let answer = Answer::of(connect(&site.node, ADDRESS), "GET", "/metrics");
                assert_eq!(answer.status(), "200");
            });
        }
    });
}

#[test]
fn a_unix_socket_is_for_root_alone_and_replaces_only_a_dead_one() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let path = ctl.path("metrics.sock");
    let line = format!("--metrics unix:{}", path.display());
    let mut agent = Agent::start(&ctl, &line);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Scrape::over_unix(&path).value("vlan_bridge_agent_info", &[]), Some(1.0));
    kill(agent.pid(), Signal::SIGKILL).unwrap();
    poll(SOON, "the end of the agent", || !agent.process().is_alive());
    assert!(UnixStream::connect(&path).is_err() && path.exists());
    let agent = Agent::start(&ctl, &line);
    Scrape::over_unix(&path);
    agent.end();
    assert!(!path.exists());
    fs::write(&path, "foreign").unwrap();
    let refused = ctl.run(&format!("agent {line}"));
    let why =
        format!("metrics cannot be served at unix:{}: there is a file that is no socket", path.display());
    assert!(!refused.ok() && refused.stderr.contains(&why), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "foreign");
}

/// A connection to a socket whose queue is full would wait for the process that listens there.
#[test]
fn a_unix_socket_whose_process_takes_no_connection_is_refused_at_once() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let path = ctl.path("metrics.sock");
    let address = UnixAddr::new(&path).unwrap();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let unix = || socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let hung = unix();
    socket::bind(hung.as_raw_fd(), &address).unwrap();
    socket::listen(&hung, Backlog::new(0).unwrap()).unwrap();
    let mut clients = vec![unix()];
    while socket::connect(clients.last().unwrap().as_raw_fd(), &address).is_ok() {
        clients.push(unix());
    }
    let mut agent = Agent::begin(&ctl, &format!("--metrics unix:{}", path.display()));
    poll(SOON, "the end of the agent", || !agent.process().is_alive());
    let why = "another process listens there, and takes no connection";
    let told = format!("metrics cannot be served at unix:{}: {why}", path.display());
    assert!(agent.reports().contains(&told), "{}", agent.reports());
}

#[test]
fn an_address_that_cannot_be_served_is_refused_before_anything_starts() {
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    site.node.ip("link set lo up");
    let _other = site.node.enter(|| std::net::TcpListener::bind(ADDRESS)).unwrap();
    let refused = ctl.run(&format!("agent --metrics {ADDRESS}"));
    // The C libraries have different words for it.
    let why = format!("metrics cannot be served at {ADDRESS}: Address ");
    assert!(!refused.ok() && refused.stderr.contains(&why), "{refused}");
    assert_eq!(refused.stderr.matches("os error 98").count(), 1, "{refused}");
    assert!(!refused.stderr.contains("watches the node"), "{refused}");
    let wrong = ctl.run("agent --metrics localhost:9470");
    assert!(wrong.stderr.contains("neither an address and a port, such as 127.0.0.1:9470"), "{wrong}");
    assert_eq!(wrong.status.code(), Some(2));
}
