//! The node's own address changes: the routes of running pods follow it, on the node and in the pods.

use crate::host_access::site;
use integration::{AddResult, Agent, Capture, Ctl, Frame, Pod, Site, ip, poll, product};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const OLD: &str = Site::NODE[0];
const NEW: &str = "10.51.0.99";

/// As when DHCP gives the node another address: the default route comes back after the address.
fn move_address(site: &Site) {
    site.node.ip(&format!("addr del {OLD}/24 dev nic1\naddr add {NEW}/24 dev nic1"));
    site.node.ip("route add default via 10.51.0.1");
}

fn list(site: &Site) -> Value {
    let mut conf = site.dual_stack_conf();
    conf["serviceCIDRs"] = json!(["10.96.0.0/12"]);
    site.node.list(Site::NETWORK, &[conf])
}

/// Where the pod sends to.
fn gateway(pod: &Pod, to: &str) -> String {
    let routes = pod.ip_json(&format!("route get {to}"));
    routes[0]["gateway"].as_str().unwrap_or("none").to_owned()
}

/// What differs from an ADD that knows the node's new address.
fn complaint(site: &Site, pod: &Pod, result: &AddResult) -> Option<String> {
    let address = result.addresses()[0].clone();
    let routes = pod.run("ip route show proto 117").expect_ok().stdout;
    let neighbours = pod.run("ip neigh show nud permanent").expect_ok().stdout;
    let sources = site.node.run("nft list map inet vlan-bridge sources4").expect_ok().stdout;
    let checks = [
        (pod.pings(NEW), "the pod reaches its node"),
        (site.node.pings(&address), "the node reaches the pod"),
        (gateway(pod, NEW) == "none" && gateway(pod, OLD) != "none", "the pod's routes"),
        (gateway(pod, "10.96.0.1") == NEW, "the route to services"),
        (neighbours.contains(NEW) && !neighbours.contains(OLD), "the pod's neighbours"),
        (sources.contains(NEW) && !sources.contains(OLD), "the sources of services"),
        (site.node.plugin(&list(site)).check(&pod.eth0(), result).ok(), "CHECK"),
    ];
    let wrong = checks.iter().find(|(holds, _)| !holds)?.1;
    Some(format!("{wrong}: {routes}{neighbours}{sources}"))
}

#[test]
fn the_routes_of_running_pods_follow_the_nodes_address() {
    for with_agent in [true, false] {
        let (site, pod) = (site(), Pod::new());
        let ctl = Ctl::new(&site.node);
        let result = site.node.plugin(&list(&site)).add(&pod.eth0()).result();
        // The node keeps its IPv6 address, and the pod its IPv6 routes.
        let before = pod.run("ip -6 route show").expect_ok().stdout;
        let told = format!("the node has got {NEW}, and no longer {OLD}, and 1 pods did not follow");
        if with_agent {
            let agent = Agent::start(&ctl, "");
            move_address(&site);
            agent.await_report("restored the routes of the pods of br136 to their node");
            poll(SOON, "an attachment as an ADD leaves it", || complaint(&site, &pod, &result).is_none());
            assert!(!agent.reports().contains("not restored"), "{}", agent.reports());
        } else {
            move_address(&site);
            assert!(complaint(&site, &pod, &result).is_some());
            let repaired = ctl.run("repair");
            assert!(repaired.stdout.contains(&told), "{repaired}");
            assert_eq!(ctl.run("repair").stdout.lines().next(), Some("nothing to repair"));
        }
        assert_eq!(complaint(&site, &pod, &result), None);
        assert_eq!(pod.run("ip -6 route show").expect_ok().stdout, before);
        let router = Capture::start(&site.router, "port");
        assert!(pod.pings(NEW) && pod.pings(Site::GATEWAY));
        let of_node = |frame: &Frame| frame.mentions(ip(NEW));
        assert!(!router.frames().iter().any(of_node), "the pod reaches its node through the router");
    }
}

#[test]
fn an_interface_that_is_down_for_a_moment_changes_no_pod() {
    let (site, pod) = (site(), Pod::new());
    let ctl = Ctl::new(&site.node);
    site.node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    let before = pod.run("ip route show").expect_ok().stdout;
    site.node.ip("link set nic1 down");
    let told = ctl.run("repair");
    assert!(!told.stdout.contains("did not follow"), "{told}");
    assert_eq!(pod.run("ip route show").expect_ok().stdout, before);
}

#[test]
fn an_agent_that_may_not_enter_pods_reports_their_routes_and_a_dry_run_changes_nothing() {
    let (site, pod) = (site(), Pod::new());
    let ctl = Ctl::new(&site.node);
    site.node.plugin(&list(&site)).add(&pod.eth0()).expect_ok();
    let inside = || pod.run("ip route show").expect_ok().stdout;
    let on_node = || site.node.run("ip route show proto 117").expect_ok().stdout;
    let before = inside();
    let dry = Agent::start(&ctl, "--dry-run");
    move_address(&site);
    dry.await_report("the routes of the pods of br136 to their node: differs: the node has got 10.51.0.99");
    assert_eq!((inside(), on_node()), (before.clone(), String::new()), "{}", dry.reports());
    dry.end();
    let program = product().join("vlan-bridgectl");
    let line = format!("--no-new-privs --bounding-set -all,+net_admin,+net_raw {} agent", program.display());
    let agent = Agent::start_as(&ctl, ctl.command_of(Path::new("setpriv"), &line));
    agent.await_report("the routes of the pods of br136 to their node: not restored: ");
    assert!(agent.reports().contains("Operation not permitted"), "{}", agent.reports());
    assert_eq!(inside(), before);
    assert!(on_node().contains(NEW), "the node's side: {}", agent.reports());
    agent.end();
    ctl.run("repair");
    assert!(inside().contains(NEW) && !inside().contains(OLD), "{}", inside());
}

/// A path with the number of a process may be another pod's by now.
#[test]
fn a_namespace_that_is_not_the_pods_is_left_alone() {
    let (site, pod, other) = (site(), Pod::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let result = site.node.plugin(&site.list()).add(&pod.eth0()).result();
    let folder = format!("/run/vlan-bridge/ways/{}/br136", site.node.cookie());
    let record = Path::new(&folder).join(result.host_interface());
    let text = fs::read_to_string(&record).unwrap();
    let [own, others] = [&pod, &other].map(|pod| pod.path().display().to_string());
    assert!(text.contains(&own), "{text}");
    fs::write(&record, text.replace(&own, &others)).unwrap();
    site.node
        .ip(&format!("link add others type veth peer name eth0 netns {}\nlink set others up", other.name()));
    other.ip("link set eth0 up");
    move_address(&site);
    let told = ctl.run("repair");
    assert!(!told.ok() && told.stderr.contains("is not the network namespace that"), "{told}");
    assert_eq!(other.run("ip route show").expect_ok().stdout, "");
}
