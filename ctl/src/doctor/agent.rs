//! The node agent: whether it works, and what it cannot keep.

use vlan_bridge_agent::{AgentState, Reason, Told};

use super::finding::{Finding, counted};
use crate::facts::Facts;

const CHECK: &str = "agent";
const NEEDLESS: &str = "the agent is optional: until it works, the next ADD or DEL restores what is changed";
const RESTART: &str = "systemctl restart vlan-bridge-agent, or end the agent and start it again";

/// The agent of this node. Without one, only a unit that does not run is told.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    match &facts.agent {
        None if facts.has_agent_unit => vec![
            Finding::warn(CHECK, "the agent's unit is installed, and no agent runs", NEEDLESS)
                .fix("systemctl enable --now vlan-bridge-agent; journalctl -u vlan-bridge-agent"),
        ],
        None => Vec::new(),
        Some(Err(why)) => {
            vec![Finding::warn(CHECK, why, "what the agent does is unknown").fix(RESTART)]
        }
        Some(Ok(agent)) => running(agent),
    }
}

fn running(agent: &AgentState) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let mut findings = Vec::new();
    if !agent.version.is_empty() && agent.version != own {
        let seen = format!("the agent is version {}, and this is {own}", agent.version);
        let why = "it restores what its own version sets up";
        findings.push(Finding::warn(CHECK, seen, why).fix(format!("install the same version; {RESTART}")));
    }
    let Some(health) = agent.health else {
        let seen = "the agent has not looked at the node yet";
        findings.push(Finding::warn(CHECK, seen, NEEDLESS).fix("call doctor again in a minute"));
        return findings;
    };
    let age = health.age().map_or(0, |age| age.as_secs());
    if !health.is_fresh().unwrap_or(true) {
        let seen = format!("the agent last looked at the node {age} s ago");
        findings.push(Finding::warn(CHECK, seen, NEEDLESS).fix(RESTART));
    }
    if health.remaining() > 0 {
        findings.push(remaining(agent, health.remaining()));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("it looked at the node {age} s ago")));
    }
    findings
}

/// What the agent did not restore: something that is changed again and again, or that the kernel refuses.
fn remaining(agent: &AgentState, number: u64) -> Finding {
    let reasons = [Reason::LeftAlone, Reason::NotRestored, Reason::Differs].map(Reason::as_str);
    let is_about_it = |told: &&Told| reasons.contains(&told.reason.as_str());
    let last = agent.recent.iter().rev().find(is_about_it);
    let last = last.map_or(String::new(), |told| format!("; last: {}", told.text));
    let number = counted(usize::try_from(number).unwrap_or(usize::MAX), "difference");
    let why = "another program changes it back, the kernel refuses it, or the agent runs with --dry-run";
    Finding::warn(CHECK, format!("the agent leaves {number}{last}"), why)
        .fix("end what changes it, then vlan-bridgectl repair")
}
