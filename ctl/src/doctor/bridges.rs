//! The bridges, and their ports towards the network.

use kernel::link::Link;
use vlan_bridge::ownership::belongs_to;

use super::finding::{Finding, Verdict, counted};
use crate::facts::{Facts, Network};

const CHECK: &str = "bridge";
const REPAIR: &str = "vlan-bridgectl repair";

/// Each network's. Before the first pod there are none.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    facts.networks.iter().map(|network| bridge(facts, network)).collect()
}

fn bridge(facts: &Facts, network: &Network) -> Finding {
    let (name, network) = (&network.config.name, &network.config.network);
    let pods = facts.attachments().filter(|link| belongs_to(link, name)).count();
    let shown = &network.bridge;
    let Some(bridge) = facts.link(shown) else {
        if pods == 0 {
            return Finding::ok(CHECK, format!("{shown} of network {name} comes with the first pod"));
        }
        let seen = format!("{shown} of network {name} is gone, beneath {}", counted(pods, "pod"));
        return Finding::fail(CHECK, seen, "they reach nobody until the next ADD, DEL or GC").fix(REPAIR);
    };
    if bridge.bridge().is_none() {
        let seen = format!("{shown} is a {}", bridge.kind_name());
        return Finding::fail(CHECK, seen, "every ADD is refused").fix("name another bridge in the list");
    }
    if !bridge.up {
        let seen = format!("{shown} is down");
        let by_hand = format!("ip link set {shown} up");
        return Finding::fail(CHECK, seen, "pods reach nothing until the next ADD").fix(cure(pods, &by_hand));
    }
    let finding = match &network.uplink {
        Some(uplink) => port(facts, bridge, uplink.port_name(), pods),
        None => Finding::ok(CHECK, format!("{shown}, of this node alone")),
    };
    if finding.verdict == Verdict::Ok { listens(bridge).unwrap_or(finding) } else { finding }
}

/// Ports that are there already go on when spanning tree is switched on; those of new pods listen first.
fn listens(bridge: &Link) -> Option<Finding> {
    let options = bridge.bridge().filter(|options| options.stp && options.forward_delay > 0)?;
    let seen = format!("{} runs spanning tree", bridge.name);
    let why = format!("each new pod is silent for {} s", 2 * options.forward_delay / 100);
    Some(without_spanning_tree(Finding::warn(CHECK, seen, why), &bridge.name))
}

/// Two commands: while spanning tree is on, the kernel refuses a delay of 0.
fn without_spanning_tree(finding: Finding, bridge: &str) -> Finding {
    let set = |option: &str| format!("ip link set {bridge} type bridge {option}");
    finding.fix(set("stp_state 0")).fix(set("forward_delay 0"))
}

/// What brings a bridge back. `repair` looks at networks that pods are attached to, and brings their routes
/// back as well.
fn cure(pods: usize, by_hand: &str) -> String {
    if pods == 0 { by_hand.to_owned() } else { format!("{REPAIR}; or {by_hand}") }
}

fn port(facts: &Facts, bridge: &Link, name: &str, attached: usize) -> Finding {
    let (shown, why) =
        (&bridge.name, "pods of this node reach each other and nobody else until the next ADD");
    let join = cure(attached, &format!("ip link set {name} master {shown} up"));
    match facts.link(name) {
        None => Finding::fail(CHECK, format!("{name}, the port of {shown}, is gone"), why)
            .fix(cure(attached, "start a pod: its ADD makes it anew")),
        Some(port) if port.master != Some(bridge.index) => {
            Finding::fail(CHECK, format!("{name} is no port of {shown}"), why).fix(join)
        }
        Some(port) if !port.up => Finding::fail(CHECK, format!("{name} is down"), why).fix(join),
        Some(port) if !port.carrier => {
            Finding::fail(CHECK, format!("{name} has no carrier"), why).fix("look at cables and switch ports")
        }
        Some(port) if !port.forwarding => {
            let seen = format!("{shown} lets nothing through {name}");
            let finding = Finding::fail(CHECK, seen, "spanning tree blocks or still listens there");
            // A port goes on listening for as long as it was told when it came.
            without_spanning_tree(finding, shown).fix(format!("bridge link set dev {name} state 3"))
        }
        Some(_) => {
            let pods = facts.attachments().filter(|pod| pod.master == Some(bridge.index)).count();
            Finding::ok(CHECK, format!("{shown} with {name} and {}", counted(pods, "pod")))
        }
    }
}
