//! What the agent tells about pools.

use std::fmt::Display;

use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::register::Register;
use vlan_bridge_pool::runs::Runs;

use crate::report::{Reason, Report, Severity};

impl Report {
    pub(super) fn pool_not_used(problem: &str) -> Report {
        Report::new(Severity::Error, Reason::PoolNotUsed, problem.to_owned())
    }

    pub(super) fn store_away(error: &dyn Display) -> Report {
        let text = format!(
            "the store of pools does not answer: {error}: pods get addresses from this node's stock only"
        );
        Report::new(Severity::Error, Reason::PoolStoreAway, text)
    }

    pub(super) fn store_answers() -> Report {
        Report::new(Severity::Notice, Reason::PoolStoreAnswers, "the store of pools answers again".into())
    }

    pub(super) fn pool_dry(share: &Name, why: &str) -> Report {
        Report::new(Severity::Error, Reason::AddressPoolDry, format!("pods of network {share} wait: {why}"))
    }

    pub(super) fn recovers(pool: &Name) -> Report {
        let text = format!(
            "the store of pool {pool} went back to an older state: no node takes addresses until an operator opens \
             the pool, when each node has caught up or is off for good: vlan-bridgectl pool thaw --after-restore {pool}"
        );
        Report::new(Severity::Error, Reason::PoolRestored, text)
    }

    pub(super) fn fenced(share: &Name, addresses: &Runs) -> Report {
        let addresses: Vec<String> = addresses.texts().collect();
        let text = format!(
            "pods of network {share} use {}, which the pool grants to others now: delete these pods",
            addresses.join(", ")
        );
        Report::new(Severity::Error, Reason::AddressFenced, text)
    }

    pub(super) fn two_machines(node: &Name, other: &Register) -> Report {
        let Register { instance, boot, .. } = other;
        let text = format!(
            "two machines call themselves {node}: the store knows one with instance {instance}, booted as {boot}. \
             This one takes no addresses from pools. Give one of them another name (--node)"
        );
        Report::new(Severity::Error, Reason::TwoMachinesOneName, text)
    }
}
