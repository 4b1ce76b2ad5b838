//! Shared address pools: whether an agent takes addresses from them, and its store answers.

use vlan_bridge_agent::PoolShown;

use super::finding::Finding;
use crate::facts::Facts;

const CHECK: &str = "pools";
const OWN_ONLY: &str = "pods get addresses of this node's stock only, and then none";

/// A finding for each pool of each network.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let with_pools = facts.networks.iter().filter(|network| {
        network.config.network.addresses.as_ref().is_some_and(|addresses| addresses.pool.is_some())
    });
    let names: Vec<&str> = with_pools.map(|network| network.config.name.as_str()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    match &facts.agent {
        None => {
            let seen = format!("no agent takes addresses from the pool of {}", names.join(", "));
            vec![
                Finding::fail(CHECK, seen, OWN_ONLY)
                    .fix("vlan-bridgectl install --agent, or run vlan-bridgectl agent on this node"),
            ]
        }
        // The check of the agent tells why.
        Some(Err(_)) => Vec::new(),
        Some(Ok(agent)) => agent.pools.iter().map(judge).collect(),
    }
}

fn judge(shown: &PoolShown) -> Finding {
    let fix = format!("vlan-bridgectl pool show {}; journalctl -u vlan-bridge-agent", shown.pool);
    if shown.problem.is_some() || shown.away.is_some() {
        return Finding::fail(CHECK, shown, OWN_ONLY).fix(fix);
    }
    if shown.waiting > 0 {
        let why = "the pool has no free address, and other nodes have not given any back yet";
        return Finding::fail(CHECK, shown, why).fix(fix);
    }
    Finding::ok(CHECK, shown)
}
