//! The uplink gets another MTU: running pods and their bridge follow it, as pods that an ADD attaches then.

use integration::{Agent, Ctl, Pod, Site, poll, product};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn mtu_of(namespace: &integration::Namespace, interface: &str) -> u64 {
    namespace.ip_json(&format!("link show dev {interface}"))[0]["mtu"].as_u64().unwrap()
}

/// A node with a bridge and three pods: two that follow the uplink, and one of a network with an `mtu`.
struct Scene {
    site: Site,
    pods: [Pod; 3],
    veths: Vec<String>,
}

impl Scene {
    fn new() -> Scene {
        let (site, pods) = (Site::new(), [Pod::new(), Pod::new(), Pod::new()]);
        let slice = json!({"mtu": 1300, "ipam": {"slice": "172.20.56.32/28"}});
        let lists = [site.list(), site.list(), site.network("fixed", &slice)];
        let attached = pods
            .iter()
            .zip(&lists)
            .map(|(pod, list)| site.node.plugin(list).add(&pod.eth0()).result().host_interface().to_owned());
        let veths = attached.collect();
        Scene { site, pods, veths }
    }

    /// On the whole network, as an operator does.
    fn set_uplink(&self, mtu: u32) {
        self.site.router.ip(&format!("link set port mtu {mtu}"));
        self.site.node.ip(&format!("link set nic0 mtu {mtu}"));
    }

    /// The MTU of the bridge, then that of both ends of each pod.
    fn seen(&self) -> (u64, Vec<[u64; 2]>) {
        let ends = |(pod, veth): (&Pod, &String)| [mtu_of(&self.site.node, veth), mtu_of(pod, "eth0")];
        (mtu_of(&self.site.node, "br136"), self.pods.iter().zip(&self.veths).map(ends).collect())
    }

    /// Whether the first pod gets an answer to a packet that is as large as it may be, in fragments if need
    /// be.
    fn passes_large_packets(&self) -> bool {
        let line = format!("ping -c 1 -W 1 -M dont -s 1472 {}", Site::GATEWAY);
        self.pods[0].run(&line).ok()
    }
}

#[test]
fn running_pods_and_their_bridge_follow_the_uplinks_mtu() {
    for with_agent in [true, false] {
        let scene = Scene::new();
        let ctl = Ctl::new(&scene.site.node);
        assert_eq!(scene.seen(), (1500, vec![[1500; 2], [1500; 2], [1300; 2]]));
        assert!(scene.passes_large_packets());
        let agent = with_agent.then(|| Agent::start(&ctl, ""));
        let follows = |what: &str, expected: (u64, Vec<[u64; 2]>)| {
            if with_agent {
                poll(SOON, what, || scene.seen() == expected);
            } else {
                assert_ne!(scene.seen(), expected, "{what}: nothing is shown");
                let told = ctl.run("repair");
                assert!(told.stdout.contains("the MTU of br136 and its pods: nic0 has MTU 1"), "{told}");
                assert_eq!(scene.seen(), expected, "{what}: {told}");
                assert_eq!(ctl.run("repair").stdout.lines().next(), Some("nothing to repair"));
            }
            assert!(scene.passes_large_packets(), "{what}");
        };
        // An operator has set it, so the kernel does not change it any more.
        scene.site.node.ip("link set br136 mtu 1500");
        scene.set_uplink(1400);
        assert!(with_agent || !scene.passes_large_packets(), "large packets pass all the same");
        follows("lower", (1400, vec![[1400; 2], [1400; 2], [1300; 2]]));
        // The second pod chooses a smaller one.
        scene.pods[1].ip("link set eth0 mtu 1350");
        scene.set_uplink(1500);
        follows("higher", (1400, vec![[1500; 2], [1500, 1350], [1300; 2]]));
        // Without the pod that must have less, nothing keeps the bridge from following.
        let fixed = scene.site.network("fixed", &json!({"mtu": 1300, "ipam": {"slice": "172.20.56.32/28"}}));
        scene.site.node.plugin(&fixed).del(&scene.pods[2].eth0()).expect_ok();
        ctl.run("repair");
        assert_eq!(mtu_of(&scene.site.node, "br136"), 1500);
        if let Some(agent) = agent {
            assert!(!agent.reports().contains("not restored"), "{}", agent.reports());
        }
    }
}

#[test]
fn an_agent_that_may_not_enter_pods_reports_their_mtu_and_changes_neither_end() {
    let scene = Scene::new();
    let ctl = Ctl::new(&scene.site.node);
    scene.set_uplink(1400);
    let (_, before) = scene.seen();
    let dry = Agent::start(&ctl, "--dry-run");
    let told = "the MTU of br136 and its pods: differs: nic0 has MTU 1400, and 2 pods have 1500";
    dry.await_report(told);
    assert_eq!(scene.seen().1, before);
    dry.end();
    let program = product().join("vlan-bridgectl");
    let line = format!("--no-new-privs --bounding-set -all,+net_admin,+net_raw {} agent", program.display());
    let agent = Agent::start_as(&ctl, ctl.command_of(Path::new("setpriv"), &line));
    let told = "the MTU of br136 and its pods: not restored: nic0 has MTU 1400, and 2 pods have 1500: ";
    agent.await_report(told);
    assert!(agent.reports().contains("Operation not permitted"), "{}", agent.reports());
    assert_eq!(scene.seen().1, before);
}

/// An interface with less than 1280 loses its IPv6 addresses, and they do not come back.
#[test]
fn a_pod_with_ipv6_does_not_follow_below_what_ipv6_needs() {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let list = site.node.list(Site::NETWORK, &[site.dual_stack_conf()]);
    site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    site.node.ip("link set nic0 mtu 1200");
    let told = ctl.run("repair");
    let why =
        "they would lose their IPv6 addresses, so they keep 1500: the bridge drops packets larger than 1200";
    assert!(!told.ok() && told.stderr.contains(why), "{told}");
    assert_eq!(mtu_of(&pod, "eth0"), 1500);
    assert!(pod.run("ip -6 addr show dev eth0").stdout.contains("fd00:136::"));
}

/// A bridge of ours with an address of the node, and with an MTU that somebody has set. One that nobody has
/// set follows its ports by itself.
#[test]
fn a_bridge_with_ipv6_does_not_follow_below_what_ipv6_needs() {
    let (site, pod) = (Site::new(), Pod::new());
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &site.list().to_string());
    node.plugin(&site.list()).add(&pod.eth0()).expect_ok();
    site.router.ip("addr add fd00:136::1/64 dev port nodad");
    node.ip("link set br136 mtu 1400\nlink set br136 mtu 1500\naddr add fd00:136::9/64 dev br136 nodad");
    let has_address = || node.run("ip -6 addr show dev br136").stdout.contains("fd00:136::9/64");
    let passes = |size: u32| node.run(&format!("ping -c 1 -W 1 -s {size} fd00:136::1")).ok();
    assert!(passes(1400));
    node.ip("link set nic0 mtu 1200");
    let why = "br136 has 1500, and the uplink 1200: with less than 1280, br136 would lose its IPv6 \
               addresses and routes, so it keeps 1500: the bridge drops packets larger than 1200 to the \
               uplink, and nobody is told";
    let told = ctl.run("repair");
    assert!(!told.ok() && told.stderr.contains(why), "{told}");
    let agent = Agent::start(&ctl, "");
    agent.await_report(&format!("the MTU of br136 and its pods: not restored: {why}"));
    assert_eq!((mtu_of(node, "br136"), has_address()), (1500, true));
    // The pod has no IPv6 address, and follows.
    assert_eq!(mtu_of(&pod, "eth0"), 1200);
    // As the report says.
    assert!(passes(1000) && !passes(1400));
    let findings = ctl.failures();
    let told = "br136 has MTU 1500, nic0 below it has 1200";
    assert!(findings.iter().any(|finding| format!("{finding:?}").contains(told)), "{findings:?}");
    // Not so low that the kernel minds.
    node.ip("link set nic0 mtu 1280");
    poll(SOON, "the bridge with the uplink's MTU", || mtu_of(node, "br136") == 1280);
    assert!(has_address());
    // Without the address nothing is lost.
    node.ip("addr flush dev br136\nlink set nic0 mtu 1200");
    poll(SOON, "the bridge with a smaller MTU", || mtu_of(node, "br136") == 1200);
}
