//! The node as lines of text, and as JSON.

use std::io::Write;

use anyhow::Result;
use kernel::link::Kind;
use serde_json::{Value, json};
use vlan_bridge::ownership::is_ours;
use vlan_bridge_agent::KnownConflict;

use crate::bond::BondMember;
use crate::facts::{Facts, NetworkState, state};
use crate::output;
use crate::pods::{addresses, host_ports, name, pods};

/// The node as a JSON document.
pub(super) fn to_json(facts: &Facts) -> Value {
    json!({
        "uplinks": facts.masters().into_iter().map(|name| uplink(facts, name)).collect::<Vec<_>>(),
        "networks": facts.networks.iter().map(|seen| network(facts, seen)).collect::<Vec<_>>(),
        "agent": agent(facts),
        "pods": pods(facts),
    })
}

/// Prints the node as text.
pub(super) fn print(facts: &Facts, out: &mut dyn Write) -> Result<()> {
    for name in facts.masters() {
        writeln!(out, "UPLINK   {}", uplink_line(facts, name))?;
    }
    for seen in &facts.networks {
        writeln!(out, "NETWORK  {}", network_line(facts, seen))?;
        for usage in &seen.leases.usage {
            writeln!(out, "         {usage}")?;
        }
        if let Some(why) = &seen.leases.unreadable {
            writeln!(out, "         its leases cannot be read: {why}")?;
        }
    }
    for (path, why) in &facts.refused {
        writeln!(out, "REFUSED  {}: {why}", path.display())?;
    }
    if facts.networks.is_empty() && facts.refused.is_empty() {
        let folders: Vec<String> =
            facts.folders.iter().map(|(folder, _)| folder.display().to_string()).collect();
        writeln!(out, "no network list with vlan-bridge in {}", folders.join(", "))?;
    }
    writeln!(out, "AGENT    {}", agent_line(facts))?;
    for pool in facts.pools() {
        writeln!(out, "POOL     {}", output::printable(&pool.to_string()))?;
    }
    for KnownConflict { address, other, uplink, pod, .. } in facts.conflicts() {
        let whose = output::printable(pod.as_deref().unwrap_or("a pod"));
        writeln!(out, "CONFLICT {address} of {whose}: {other} on {uplink} uses it")?;
    }
    let pods = pods(facts);
    if !pods.is_empty() {
        writeln!(
            out,
            "\n{:24} {:15} {:12} {:16} {:20} POD",
            "ADDRESS", "NETWORK", "INTERFACE", "PORT", "BRIDGE"
        )?;
    }
    for pod in pods {
        writeln!(out, "{}", pod_line(&pod).trim_end())?;
    }
    Ok(())
}

/// A bond or NIC that is an uplink.
fn uplink(facts: &Facts, name: &str) -> Value {
    let Some(link) = facts.link(name) else { return json!({"name": name, "state": "missing"}) };
    let mut value = json!({"name": name, "state": state(link), "mtu": link.mtu});
    if let Kind::Bond(options) = &link.kind {
        let bond = facts.bonds.get(name).cloned().unwrap_or_default();
        value["mode"] = options.mode.as_str().into();
        value["partner"] = bond.partner.clone().into();
        let member = |member: &BondMember| {
            let BondMember { name, up, speed, duplex, .. } = member;
            json!({"name": name, "up": up, "speed": speed, "duplex": duplex})
        };
        value["members"] = bond.members.iter().map(member).collect();
    }
    value
}

fn uplink_line(facts: &Facts, name: &str) -> String {
    let Some(link) = facts.link(name) else { return format!("{name}: missing") };
    let Kind::Bond(options) = &link.kind else {
        return format!("{name}: {}, MTU {}", state(link), link.mtu);
    };
    let bond = facts.bonds.get(name).cloned().unwrap_or_default();
    let members: Vec<String> = bond
        .members
        .iter()
        .map(|member| match member.up {
            true => format!("{} {} {}", member.name, member.speed, member.duplex),
            false => format!("{} down", member.name),
        })
        .collect();
    format!("{name}: {}, {}, MTU {}, {}", options.mode, state(link), link.mtu, members.join(", "))
}

/// A network: its bridge, the bridge's uplink port, and the usage of its ranges.
fn network(facts: &Facts, seen: &NetworkState) -> Value {
    let bridge = facts.link(&seen.config.network.bridge);
    let port = seen.config.network.uplink.as_ref().map(|uplink| uplink.port_name());
    let usage = seen.leases.usage.iter().map(|usage| {
        json!({"range": usage.range, "used": usage.used as u64, "cooling": usage.cooling as u64,
            "quarantined": usage.quarantined as u64, "total": u64::try_from(usage.total).ok()})
    });
    json!({
        "name": seen.config.name,
        "list": seen.path,
        "bridge": {"name": seen.config.network.bridge, "state": bridge.map_or("missing", state),
            "mtu": bridge.map(|bridge| bridge.mtu), "ours": bridge.map(is_ours)},
        "port": port.map(|name| json!({"name": name, "vlan": vlan(facts, name), "state": facts.link(name).map_or("missing", state)})),
        "usage": usage.collect::<Vec<_>>(),
        "unreadable": seen.leases.unreadable.as_ref().map(ToString::to_string),
    })
}

fn network_line(facts: &Facts, seen: &NetworkState) -> String {
    let network = &seen.config.network;
    let bridge = facts.link(&network.bridge);
    let mut line =
        format!("{}: bridge {} {}", seen.config.name, network.bridge, bridge.map_or("missing", state));
    if let Some(uplink) = &network.uplink {
        let name = uplink.port_name();
        let vlan = vlan(facts, name).map_or(String::new(), |id| format!(" (VLAN {id} of {})", uplink.master));
        line += &format!(", port {name}{vlan} {}", facts.link(name).map_or("missing", state));
    }
    if let Some(bridge) = bridge {
        line += &format!(", MTU {}", bridge.mtu);
    }
    line
}

/// The node's agent; null if none runs.
fn agent(facts: &Facts) -> Value {
    match &facts.agent {
        None => Value::Null,
        Some(Err(why)) => json!({"error": why}),
        Some(Ok(agent)) => {
            let age = agent.health.and_then(|health| health.age().ok()).map(|age| age.as_secs());
            let mut value = agent.to_json();
            value["ageSeconds"] = age.into();
            value
        }
    }
}

pub(super) fn agent_line(facts: &Facts) -> String {
    let agent = match &facts.agent {
        None => return "none runs".into(),
        Some(Err(why)) => return why.clone(),
        Some(Ok(agent)) => agent,
    };
    let age = agent.health.and_then(|health| health.age().ok());
    let last = age.map_or("not yet".to_owned(), |age| format!("{} s ago", age.as_secs()));
    let remaining = agent.health.map_or(0, |health| health.remaining());
    let remaining = if remaining == 0 { String::new() } else { format!(", {remaining} not restored") };
    format!("version {}, last look {last}{remaining}, {} conflicts", agent.version, agent.conflicts.len())
}

pub(super) fn vlan(facts: &Facts, name: &str) -> Option<u16> {
    match facts.link(name)?.kind {
        Kind::Vlan { id, .. } => Some(id),
        _ => None,
    }
}

fn pod_line(pod: &Value) -> String {
    let text = |key: &str| pod[key].as_str().unwrap_or("-").to_owned();
    let addresses = addresses(pod);
    let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") };
    let named = name(pod);
    let ports = host_ports(pod);
    let ports = if ports.is_empty() { String::new() } else { format!(" ports {ports}") };
    let state = text("state");
    let state = if state == "up" { String::new() } else { format!(" ({state})") };
    format!(
        "{addresses:24} {:15} {:12} {:16} {:20} {named}{ports}{state}",
        text("network"),
        text("interface"),
        text("port"),
        text("bridge")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_one_line() {
        let pod = json!({"addresses": ["10.0.0.5", "fd00::5"], "network": "n", "interface": "eth0", "port": "veth1",
            "bridge": "br0", "container": "0123456789abcdef", "state": "up",
            "hostPorts": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        let line = pod_line(&pod);
        assert!(
            line.starts_with("10.0.0.5,fd00::5 ") && line.ends_with("0123456789abc ports 8080->80/tcp"),
            "{line}"
        );
        let detached = json!({"addresses": [], "state": "detached", "pod": "shop/web-0"});
        assert!(pod_line(&detached).ends_with("shop/web-0 (detached)"), "{}", pod_line(&detached));
    }
}
