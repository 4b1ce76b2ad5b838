//! The bridges, and their uplink ports.

use kernel::link::Link;
use vlan_bridge::ownership::belongs_to;

use super::finding::{Finding, Severity, counted};
use crate::facts::{Facts, NetworkState};

const CHECK: &str = "bridge";
const REPAIR: &str = "vlan-bridgectl repair";

/// A finding for each network. Before the first pod the bridge does not exist.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    facts.networks.iter().map(|network| bridge(facts, network)).collect()
}

fn bridge(facts: &Facts, network: &NetworkState) -> Finding {
    let (name, network) = (&network.config.name, &network.config.network);
    let pods = facts.attachments().filter(|link| belongs_to(link, name)).count();
    let shown = &network.bridge;
    let Some(bridge) = facts.link(shown) else {
        if pods == 0 {
            return Finding::ok(CHECK, format!("{shown} of network {name} is created with the first pod"));
        }
        let seen = format!("{shown} of network {name} is missing, and {} attached", counted(pods, "pod"));
        return Finding::fail(CHECK, seen, "these pods are cut off until the next ADD, DEL or GC")
            .fix(REPAIR);
    };
    if bridge.bridge().is_none() {
        let seen = format!("{shown} is a {}", bridge.kind_name());
        return Finding::fail(CHECK, seen, "every ADD fails").fix("set another bridge in the list");
    }
    if !bridge.up {
        let seen = format!("{shown} is down");
        let by_hand = format!("ip link set {shown} up");
        return Finding::fail(CHECK, seen, "pods are cut off until the next ADD")
            .fix(repair_or(pods, &by_hand));
    }
    let finding = match &network.uplink {
        Some(uplink) => port(facts, bridge, uplink.port_name(), pods),
        None => Finding::ok(CHECK, format!("{shown}, without uplink")),
    };
    if finding.severity == Severity::Ok { spanning_tree(bridge).unwrap_or(finding) } else { finding }
}

/// Spanning tree: existing ports keep forwarding when it is enabled, but ports of new pods listen first.
fn spanning_tree(bridge: &Link) -> Option<Finding> {
    let options = bridge.bridge().filter(|options| options.stp && options.forward_delay > 0)?;
    let seen = format!("{} runs spanning tree", bridge.name);
    let why = format!("each new pod is cut off for {} s", 2 * options.forward_delay / 100);
    Some(without_spanning_tree(Finding::warn(CHECK, seen, why), &bridge.name))
}

/// Two commands, because the kernel refuses a forward delay of 0 while spanning tree is on.
fn without_spanning_tree(finding: Finding, bridge: &str) -> Finding {
    let set = |option: &str| format!("ip link set {bridge} type bridge {option}");
    finding.fix(set("stp_state 0")).fix(set("forward_delay 0"))
}

/// The fix for a bridge that is down or incomplete. `repair` handles networks with attached pods only, and
/// restores their routes as well.
fn repair_or(pods: usize, by_hand: &str) -> String {
    if pods == 0 { by_hand.to_owned() } else { format!("{REPAIR}; or {by_hand}") }
}

fn port(facts: &Facts, bridge: &Link, name: &str, attached: usize) -> Finding {
    let (shown, why) = (&bridge.name, "pods reach only the pods of this node until the next ADD");
    let join = repair_or(attached, &format!("ip link set {name} master {shown} up"));
    match facts.link(name) {
        None => Finding::fail(CHECK, format!("{name}, the uplink port of {shown}, is missing"), why)
            .fix(repair_or(attached, "start a pod: its ADD creates the port")),
        Some(port) if port.master != Some(bridge.index) => {
            Finding::fail(CHECK, format!("{name} is not a port of {shown}"), why).fix(join)
        }
        Some(port) if !port.up => Finding::fail(CHECK, format!("{name} is down"), why).fix(join),
        Some(port) if !port.carrier => {
            Finding::fail(CHECK, format!("{name} has no carrier"), why).fix("look at cables and switch ports")
        }
        Some(port) if !port.forwarding => {
            let seen = format!("{name} is a port of {shown} and not forwarding");
            let finding =
                Finding::fail(CHECK, seen, "spanning tree blocks the port, or it is still listening");
            // A port keeps the listening time that was in effect when it was added.
            without_spanning_tree(finding, shown).fix(format!("bridge link set dev {name} state 3"))
        }
        Some(_) => {
            let pods = facts.attachments().filter(|pod| pod.master == Some(bridge.index)).count();
            Finding::ok(CHECK, format!("{shown} with {name} and {}", counted(pods, "pod")))
        }
    }
}
