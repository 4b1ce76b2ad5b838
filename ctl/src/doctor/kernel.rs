//! Kernel modules and sysctls.

use cni_conf::family::Family;
use cni_conf::uplink::UplinkPort;
use kernel::link::Link;
use vlan_bridge::ownership::{attachment_of, is_ours};
use vlan_bridge::record::NatRecord;

use super::finding::Finding;
use crate::facts::{Facts, NetworkState, is_bond};

/// The modules that the networks need, now and at the next boot.
pub(super) fn modules(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "modules";
    let mut needed = vec!["bridge", "veth"];
    let masters = facts.masters();
    if masters.iter().any(|master| facts.link(master).is_some_and(is_bond)) {
        needed.push("bonding");
    }
    let uplinks = facts.networks.iter().filter_map(|network| network.config.network.uplink.as_ref());
    if uplinks.into_iter().any(|uplink| matches!(uplink.port, UplinkPort::SubInterface { .. })) {
        needed.push("8021q");
    }
    let modules = &facts.modules;
    let missing = needed.iter().copied().filter(|name| !modules.has(name));
    let (lacking, missing): (Vec<&str>, Vec<&str>) = missing.partition(|name| modules.lacks(name));
    let mut findings = Vec::new();
    if !lacking.is_empty() {
        let seen = format!("this kernel has no {}, neither built in nor as a module", lacking.join(", "));
        let why = "ADDs of pods that need it fail";
        let fix = format!(
            "install the rest of this kernel's modules (linux-modules-extra-$(uname -r), kernel-modules) \
             and modprobe -a {}, or boot a kernel that has them",
            lacking.join(" ")
        );
        findings.push(Finding::fail(CHECK, seen, why).fix(fix));
    }
    if !missing.is_empty() {
        let seen = format!("{} not loaded", missing.join(", "));
        let why = "the kernel may load it on demand; if it cannot, the first pod fails";
        findings.push(Finding::warn(CHECK, seen, why).fix(format!("modprobe -a {}", missing.join(" "))));
    }
    if !findings.is_empty() {
        return findings;
    }
    let late: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|name| !modules.built_in.contains(*name) && !modules.at_boot.contains(*name))
        .collect();
    if late.is_empty() {
        return vec![Finding::ok(CHECK, needed.join(", "))];
    }
    let seen = format!("{} present, but in no file of modules-load.d", late.join(", "));
    let why = "after a reboot it is loaded only on demand";
    let lines = late.join("\\n");
    vec![
        Finding::warn(CHECK, seen, why)
            .fix(format!("printf '{lines}\\n' > /etc/modules-load.d/vlan-bridge.conf")),
    ]
}

/// Forwarding and log_martians.
pub(super) fn settings(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "settings";
    let mut findings = Vec::new();
    let forwards = facts.sysctls.get("ipv4/ip_forward") == Some(1);
    for network in &facts.networks {
        findings.extend(Family::BOTH.into_iter().filter_map(|family| not_forwarded(facts, network, family)));
    }
    let logs_martians =
        |name: &str| facts.sysctls.get(&format!("ipv4/conf/{name}/log_martians")).is_some_and(|on| on != 0);
    // The kernel logs if either value is set.
    let logging: Vec<String> = if logs_martians("all") {
        vec!["all".to_owned()]
    } else {
        facts.devices().into_iter().filter(|name| logs_martians(name)).collect()
    };
    for name in logging {
        let why = "every packet that reverse-path filtering drops writes a line to the kernel log: on a shared VLAN these flood the log";
        let key = format!("net.ipv4.conf.{}.log_martians", name.replace('.', "/"));
        findings.push(Finding::warn(CHECK, format!("{key} is on"), why).fix(format!("sysctl -w {key}=0")));
    }
    if findings.is_empty() {
        let forwarding = if forwards { "on" } else { "off" };
        findings.push(Finding::ok(CHECK, format!("forwarding {forwarding}, log_martians off")));
    }
    findings
}

/// A family with attached pods that need forwarding, which is off. Before the first pod this is fine: its
/// ADD turns forwarding on.
fn not_forwarded(facts: &Facts, network: &NetworkState, family: Family) -> Option<Finding> {
    let (key, path) = match family {
        Family::V4 => ("net.ipv4.ip_forward", "ipv4/ip_forward"),
        Family::V6 => ("net.ipv6.conf.all.forwarding", "ipv6/conf/all/forwarding"),
    };
    let of = &network.config.network;
    let is_attached = |link: &Link| attachment_of(link).is_some_and(|pod| pod.network == network.config.name);
    if facts.sysctls.get(path) != Some(0)
        || !network.has_family(family)
        || !facts.attachments().any(is_attached)
    {
        return None;
    }
    let has_ports =
        |record: &NatRecord| record.pod.network == network.config.name && !record.ports.is_empty();
    let (what, why) = if of.is_gateway {
        ("is a gateway", "pods reach only this node")
    } else if of.has_nat() || facts.records.values().any(has_ports) {
        ("has services or host ports", "the node drops packets that it should forward for its pods")
    } else {
        return None;
    };
    let seen = format!("{key} is 0, and {} {what}", of.bridge);
    Some(Finding::fail("settings", seen, why).fix(format!("sysctl -w {key}=1")))
}

/// Whether a router advertisement could configure an address and a default route on a bridge or
/// sub-interface of the plugins.
pub(super) fn router_advertisements(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "accept_ra";
    let mut findings = Vec::new();
    let mut checked = Vec::new();
    for network in facts.networks.iter().filter(|network| network.config.network.uplink.is_some()) {
        let port = network.config.network.uplink.as_ref().map(|uplink| uplink.port_name());
        let names = [Some(network.config.network.bridge.as_str()), port];
        for link in
            names.into_iter().flatten().filter_map(|name| facts.link(name)).filter(|link| is_ours(link))
        {
            checked.push(link.name.as_str());
            if accepts_advertisements(facts, link) {
                let name = &link.name;
                let why = "a router advertisement on the pods' VLAN gives the node an address and a default route there";
                findings.push(
                    Finding::fail(CHECK, format!("{name} accepts router advertisements"), why)
                        .fix(format!("sysctl -w net.ipv6.conf.{}.accept_ra=0", name.replace('.', "/"))),
                );
            }
        }
    }
    if findings.is_empty() && !checked.is_empty() {
        findings.push(Finding::ok(CHECK, format!("off on {}", checked.join(", "))));
    }
    findings
}

/// accept_ra 1 applies if the interface does not forward, 2 always (`ip-sysctl.rst`).
fn accepts_advertisements(facts: &Facts, link: &Link) -> bool {
    let forwards = facts.sysctls.get(&format!("ipv6/conf/{}/forwarding", link.name)) == Some(1);
    match link.accept_ra {
        Some(2) => true,
        Some(1) => !forwards,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Leases, Modules};
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn a_module_that_cannot_come_is_a_failure() {
        let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "vlan-bridge", "bridge": "br136",
            "uplink": {"master": "bond0", "vlan": 136}}]});
        let config = crate::lists::check(&list).unwrap().remove(0);
        let network = NetworkState {
            config,
            path: "n".into(),
            leases: Leases::default(),
            entry: list,
            status: None,
            probe: None,
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut facts = Facts { networks: vec![network], ..Facts::default() };
        let mut judge = |built_in: &[&str], loadable: Option<&[&str]>| {
            facts.modules =
                Modules { built_in: set(built_in), loadable: loadable.map(set), ..Modules::default() };
            let text = modules(&facts).iter().map(Finding::to_string).collect::<Vec<_>>().join("\n");
            (text, facts.lacks_vlan_module(&facts.networks[0].config))
        };
        let (text, lacks_vlan_module) = judge(&["bridge", "veth"], Some(&[]));
        assert!(
            text.starts_with("fail  modules       this kernel has no 8021q, ") && lacks_vlan_module,
            "{text}"
        );
        let (text, lacks_vlan_module) = judge(&["bridge"], Some(&["8021q"]));
        assert!(text.contains("this kernel has no veth, ") && !lacks_vlan_module, "{text}");
        assert!(text.contains("\nwarn  modules       8021q not loaded"), "{text}");
        let (text, lacks_vlan_module) = judge(&["bridge", "veth"], None);
        assert!(text.starts_with("warn  modules       8021q not loaded") && !lacks_vlan_module, "{text}");
        let (text, _) = judge(&["bridge", "veth", "8021q"], None);
        assert_eq!(text, "ok    modules       bridge, veth, 8021q");
    }
}
