//! What the screen of `status --watch` shows. No I/O.

use std::time::Duration;

use serde_json::Value;
use vlan_bridge_agent::{KnownConflict, Told};
use vlan_bridge_ipam::store::Usage;

use super::lines::{agent_line, vlan};
use super::paint::{ScreenLine, Tone};
use crate::bond::BondState;
use crate::facts::{Facts, NetworkState, state};
use crate::pods::{addresses, host_ports, name, pods};

/// How many events are shown.
const EVENTS: usize = 6;
/// The length of a bar, in letters.
const BAR: usize = 20;

/// The screen's lines.
pub(super) fn lines(facts: &Facts, title: &str, utf8: bool) -> Vec<ScreenLine> {
    let mut lines = vec![ScreenLine::of(Tone::Heading, title)];
    for name in facts.masters() {
        lines.push(ScreenLine::default());
        lines.extend(uplink(facts, name));
    }
    for seen in &facts.networks {
        lines.push(ScreenLine::default());
        lines.extend(network(facts, seen, utf8));
    }
    let refused = |(path, why): &(std::path::PathBuf, String)| {
        ScreenLine::of(Tone::Bad, format!("REFUSED  {}: {why}", path.display()))
    };
    lines.extend(facts.refused.iter().map(refused));
    lines.push(ScreenLine::default());
    lines.extend(agent(facts));
    lines.push(ScreenLine::default());
    lines.extend(all_pods(facts));
    lines
}

/// The colour of a state.
fn tone(state: &str) -> Tone {
    match state {
        "up" | "active" => Tone::Good,
        "backup" | "adding" | "detached" | "on another machine" => Tone::Doubtful,
        _ => Tone::Bad,
    }
}

fn uplink(facts: &Facts, name: &str) -> Vec<ScreenLine> {
    let head = ScreenLine::of(Tone::Heading, format!("UPLINK   {name}"));
    let Some(link) = facts.link(name) else { return vec![head.and(Tone::Bad, " missing")] };
    let head = head.and(tone(state(link)), format!(" {}", state(link)));
    let none = BondState::default();
    let bond = facts.bonds.get(name).unwrap_or(&none);
    let mode = match &link.kind {
        kernel::link::Kind::Bond(options) => format!(", {}", options.mode),
        _ => String::new(),
    };
    let mut lines = vec![head.and(Tone::Plain, format!("{mode}, MTU {}", link.mtu))];
    lines.extend(bond.members.iter().map(|member| {
        let role = bond.role(member);
        let speed = if member.up { format!("{} {}", member.speed, member.duplex) } else { String::new() };
        ScreenLine::of(Tone::Plain, format!("         {:15} ", member.name))
            .and(tone(role), format!("{role:15}"))
            .and(Tone::Plain, speed)
    }));
    lines
}

fn network(facts: &Facts, seen: &NetworkState, utf8: bool) -> Vec<ScreenLine> {
    let network = &seen.config.network;
    let mut line = ScreenLine::of(Tone::Heading, format!("NETWORK  {}", seen.config.name));
    let mut devices = vec![("bridge", network.bridge.as_str(), String::new())];
    if let Some(uplink) = &network.uplink {
        let port = uplink.port_name();
        let vlan = vlan(facts, port).map_or(String::new(), |id| format!(" (VLAN {id})"));
        devices.push(("port", port, vlan));
    }
    for (what, name, more) in devices {
        let state = facts.link(name).map_or("missing", state);
        line = line.and(Tone::Plain, format!(", {what} {name}{more} ")).and(tone(state), state);
    }
    if let Some(bridge) = facts.link(&network.bridge) {
        line = line.and(Tone::Plain, format!(", MTU {}", bridge.mtu));
    }
    let mut lines = vec![line];
    lines.extend(seen.leases.usage.iter().map(|usage| bar(usage, utf8)));
    if let Some(why) = &seen.leases.unreadable {
        let text = format!("         its leases cannot be read: {why}");
        lines.push(ScreenLine::of(Tone::Bad, text));
    }
    lines
}

/// A range as a bar: what is used, what cools down or is in quarantine, and what is free.
fn bar(usage: &Usage, utf8: bool) -> ScreenLine {
    let (taken, waiting) = (usage.used, usage.cooling + usage.quarantined);
    let letters = |count: u128| {
        let share = count as f64 / usage.total.max(1) as f64;
        // What there is, is seen.
        ((share * BAR as f64).round() as usize).clamp(usize::from(count > 0), BAR)
    };
    let (full, half, free) = if utf8 { ("█", "▒", "░") } else { ("#", "+", ".") };
    let taken_letters = letters(taken);
    let waiting_letters = letters(waiting).min(BAR - taken_letters);
    let tone = match (taken + usage.quarantined, usage.total) {
        (used, total) if used >= total => Tone::Bad,
        (used, total) if total - used <= total / 10 => Tone::Doubtful,
        _ => Tone::Good,
    };
    let mut counts = format!(" {taken} of {}", usage.total);
    for (count, what) in [(usage.cooling, "cooling"), (usage.quarantined, "quarantined")] {
        if count > 0 {
            counts += &format!(", {count} {what}");
        }
    }
    ScreenLine::of(Tone::Plain, "         ")
        .and(tone, full.repeat(taken_letters))
        .and(Tone::Doubtful, half.repeat(waiting_letters))
        .and(Tone::Faint, free.repeat(BAR - taken_letters - waiting_letters))
        .and(Tone::Plain, format!("{counts}  {}", usage.range))
}

/// The agent, the conflicts that it knows, and its last reports.
fn agent(facts: &Facts) -> Vec<ScreenLine> {
    let mut lines = vec![ScreenLine::of(Tone::Heading, "AGENT    ").and(Tone::Plain, agent_line(facts))];
    lines.extend(facts.pools().iter().map(|pool| {
        let tone = if pool.problem.is_some() || pool.away.is_some() { Tone::Bad } else { Tone::Plain };
        ScreenLine::of(Tone::Heading, "POOL     ").and(tone, pool.to_string())
    }));
    lines.extend(facts.conflicts().iter().map(|KnownConflict { address, other, uplink, pod, .. }| {
        let whose = pod.as_deref().unwrap_or("a pod");
        ScreenLine::of(Tone::Bad, format!("CONFLICT {address} of {whose}: {other} on {uplink} uses it"))
    }));
    let events = match &facts.agent {
        Some(Ok(agent)) => {
            agent.recent.iter().rev().take(EVENTS).map(|told| event(facts.now, told)).collect()
        }
        _ => vec![ScreenLine::of(Tone::Faint, "EVENTS   none: vlan-bridgectl agent would report them here")],
    };
    lines.extend(events);
    lines
}

fn event(now: Duration, told: &Told) -> ScreenLine {
    let tone = match told.severity.as_str() {
        "error" => Tone::Bad,
        "warning" => Tone::Doubtful,
        _ => Tone::Plain,
    };
    let age = age(now.saturating_sub(told.at));
    ScreenLine::of(Tone::Faint, format!("{age:>8} ")).and(tone, &told.text)
}

fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn all_pods(facts: &Facts) -> Vec<ScreenLine> {
    let pods = pods(facts);
    let down = pods.iter().filter(|pod| pod["state"] != "up").count();
    let mut head = ScreenLine::of(Tone::Heading, "PODS     ").and(Tone::Plain, pods.len().to_string());
    if down > 0 {
        head = head.and(Tone::Bad, format!(", {down} not up"));
    }
    let mut lines = vec![head];
    lines.extend(pods.iter().map(pod_line));
    lines
}

fn pod_line(pod: &Value) -> ScreenLine {
    let state = pod["state"].as_str().unwrap_or("-");
    let network = pod["network"].as_str().unwrap_or("-");
    let ports = host_ports(pod);
    let ports = if ports.is_empty() { ports } else { format!("  ports {ports}") };
    ScreenLine::of(Tone::Plain, format!("{:24} {network:12} ", addresses(pod).join(",")))
        .and(tone(state), format!("{state:10} "))
        .and(Tone::Plain, format!("{}{ports}", name(pod)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(usage: &Usage, utf8: bool) -> String {
        let text = super::super::paint::frame(&[bar(usage, utf8)], (80, 5), 0, false);
        text.split("\x1b[K").next().unwrap_or_default().trim_start_matches("\x1b[H").trim().to_owned()
    }

    #[test]
    fn a_bar_shows_what_is_used() {
        let usage = |used, cooling, total| Usage {
            range: "r".into(),
            used,
            cooling,
            quarantined: 0,
            total,
            shared: None,
        };
        assert_eq!(shown(&usage(4, 4, 16), false), "#####+++++.......... 4 of 16, 4 cooling  r");
        assert_eq!(shown(&usage(16, 0, 16), false), "#################### 16 of 16  r");
        assert_eq!(
            shown(&usage(1, 0, 1 << 64), true),
            format!("█{} 1 of {}  r", "░".repeat(19), 1_u128 << 64)
        );
    }

    #[test]
    fn an_age_has_two_digits_or_three() {
        let text = |seconds| age(Duration::from_secs(seconds));
        assert_eq!([5, 119, 120, 7200, 200_000].map(text), ["5 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
