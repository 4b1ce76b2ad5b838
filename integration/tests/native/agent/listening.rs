//! What the agent hears on the pods' network: addresses that are ready for ADD, and machines that use a pod's
//! address.

use integration::{Agent, Background, Capture, Ctl, Frame, Plugin, Pod, Site, arp_announcement, poll};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// How long a verdict counts that nobody extends, in tenths of a second.
pub const VERDICT: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(40);

/// A machine on the network that has no interface here.
pub const OTHER: &str = "02:00:00:00:00:09";

/// When each address was last known to be unused, in tenths of a second since the boot.
pub fn verdicts(site: &Site) -> serde_json::Map<String, Value> {
    verdicts_of(site, Site::NETWORK)
}

fn verdicts_of(site: &Site, network: &str) -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(state(site, network).join("verdicts")).unwrap_or_default();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    document["clear"].as_object().cloned().unwrap_or_default()
}

/// The folder of what our IPAM plugin knows of a network besides its leases.
fn state(site: &Site, network: &str) -> PathBuf {
    site.node.data_dir().join(".vlan-bridge").join(network)
}

pub fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    (seconds * 10.0) as u64
}

/// The addresses that an ADD probes for, as the router sees it, and the address that the pod gets.
fn add_and_listen(site: &Site, plugin: &Plugin<'_>, pod: &Pod) -> (BTreeSet<Ipv4Addr>, Ipv4Addr) {
    let capture = Capture::start(&site.router, "port");
    let address: Ipv4Addr = plugin.add(&pod.eth0()).result().address().parse().unwrap();
    // The pod's first announcement comes after every probe.
    capture.wait_for("the pod's announcement", |frame| frame.arp() == Some((address, address)));
    (capture.frames().iter().filter_map(Frame::arp_probe).collect(), address)
}

/// Waits until the verdicts of an earlier probe have ended or were extended.
fn await_age(since: u64) {
    poll(PATIENCE, "the end of a verdict's time", || uptime() > since + VERDICT);
}

#[test]
fn an_address_that_was_probed_once_needs_no_probe_while_the_agent_listens() {
    let (site, pods) = (Site::new(), [Pod::new(), Pod::new(), Pod::new()]);
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    let plugin = site.node.plugin(&list);
    let (probed, _) = add_and_listen(&site, &plugin, &pods[0]);
    assert!(!probed.is_empty(), "the first ADD probes");
    let agent = Agent::start(&ctl, "");
    let begun = uptime();
    // The verdicts of the ADD are from before the agent listened. Those of the agent's own probes stay.
    poll(PATIENCE, "verdicts that are extended", || {
        verdicts(&site).values().any(|at| at.as_u64().is_some_and(|at| at > begun + VERDICT))
    });
    let (probed, address) = add_and_listen(&site, &plugin, &pods[1]);
    assert!(!probed.contains(&address), "{address} was probed for: {}", agent.reports());
    drop(agent);
    await_age(uptime());
    let (probed, address) = add_and_listen(&site, &plugin, &pods[2]);
    assert!(probed.contains(&address), "without the agent, {address} is given without a probe: {probed:?}");
}

/// A machine that takes a free address is heard. The next ADD probes for the address, and does not give it
/// out.
#[test]
fn an_address_that_another_machine_takes_is_not_given_out() {
    let (site, pods) = (Site::new(), [Pod::new(), Pod::new()]);
    let (ctl, list) = (Ctl::new(&site.node), site.list());
    let plugin = site.node.plugin(&list);
    let own: Ipv4Addr = plugin.add(&pods[0].eth0()).result().address().parse().unwrap();
    let _agent = Agent::start(&ctl, "");
    let begun = uptime();
    poll(PATIENCE, "addresses that are kept ready", || {
        verdicts(&site).values().any(|at| at.as_u64().is_some_and(|at| at > begun + VERDICT))
    });
    // The next ADD would get it.
    let next = Ipv4Addr::from(u32::from(own) + 1).to_string();
    assert!(verdicts(&site).contains_key(&next));
    site.router.ip(&format!("addr add {next}/24 dev port"));
    // As the kernel announces a new address with `arp_notify`.
    site.router.send_frame("port", &arp_announcement(next.parse().unwrap(), &site.router.mac("port")));
    poll(PATIENCE, "no verdict on the other machine's address", || !verdicts(&site).contains_key(&next));
    assert_ne!(plugin.add(&pods[1].eth0()).result().address(), next);
}

/// An ADD that hangs while it probes holds up only its own network.
#[test]
fn verdicts_are_extended_while_an_add_of_another_network_hangs() {
    let (site, pods) = (Site::new(), [Pod::new(), Pod::new()]);
    site.router.ip(&format!(
        "link add port2 type veth peer name nic2 netns {}\nlink set port2 up",
        site.node.name()
    ));
    site.node.ip("link set nic2 up");
    let other = json!({"bridge": "br137", "uplink": {"master": "nic2"}, "ipam": {
        "subnet": "172.20.57.0/24", "slice": "172.20.57.16/28", "gateway": "172.20.57.1"}});
    let lists = [site.list(), site.network("vlan137", &other)];
    for (list, pod) in lists.iter().zip(&pods) {
        site.node.plugin(list).add(&pod.eth0()).expect_ok();
    }
    let ctl = Ctl::new(&site.node);
    let probing = File::options().write(true).open(state(&site, "vlan137").join("probing")).unwrap();
    probing.lock().unwrap();
    let agent = Agent::start(&ctl, "");
    let begun = uptime();
    poll(PATIENCE, "verdicts that are extended twice", || {
        verdicts(&site).values().any(|at| at.as_u64().is_some_and(|at| at > begun + VERDICT))
    });
    let is_new = |at: &Value| at.as_u64().is_some_and(|at| at > begun);
    assert!(!verdicts_of(&site, "vlan137").values().any(is_new), "{}", agent.reports());
    drop(probing);
    poll(PATIENCE, "verdicts of the other network", || verdicts_of(&site, "vlan137").values().any(is_new));
}

#[test]
fn another_machine_with_a_pods_address_is_reported_once_and_the_address_is_defended() {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let result = site.node.plugin(&site.list()).add(&pod.eth0()).result();
    let address: Ipv4Addr = result.address().parse().unwrap();
    let mut agent = Agent::start(&ctl, "");
    pod.await_silence(&address.to_string());
    let capture = Capture::start(&site.router, "port");
    for _ in 0..20 {
        site.router.send_frame("port", &arp_announcement(address, OTHER));
    }
    agent.await_report(&format!("conflict: {OTHER} on nic0 uses {address}"));
    capture.wait_for("the defence", |frame| {
        frame.arp() == Some((address, address)) && frame.source != [2, 0, 0, 0, 0, 9]
    });
    assert_eq!(agent.reports().matches("conflict: ").count(), 1, "{}", agent.reports());
    assert!(Background::is_alive(agent.process()));
}
