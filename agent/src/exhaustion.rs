//! Networks without a free address: an ADD would fail. It is told once, until an address is free again.

use std::collections::BTreeSet;
use std::time::Duration;

use cni_conf::cni::error::{CniError, code};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use vlan_bridge_ipam::store::Usage;

use crate::report::Report;
use crate::usage::NetworkUsage;

/// As often as the agent looks at everything.
const EVERY: Duration = Duration::from_secs(60);

/// What was told, and the next look.
#[derive(Debug)]
pub(crate) struct Exhaustion {
    ticks: Interval,
    /// The leases are being read, in a thread that may wait for their locks.
    reading: Option<JoinHandle<Result<Vec<NetworkUsage>, CniError>>>,
    /// The sets of each network that have no free address.
    told: BTreeSet<(String, usize)>,
}

impl Exhaustion {
    /// Nothing is told yet. The first look is due at once.
    pub(crate) fn begin() -> Exhaustion {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Exhaustion { ticks, reading: None, told: BTreeSet::new() }
    }

    /// Waits for the next look, and returns what to tell. Nothing is lost if the future is dropped.
    pub(crate) async fn turn(&mut self) -> Result<Vec<Report>, CniError> {
        if self.reading.is_none() {
            self.ticks.tick().await;
        }
        let reading =
            self.reading.get_or_insert_with(|| tokio::task::spawn_blocking(NetworkUsage::of_this_node));
        let read = reading.await;
        self.reading = None;
        let read = read
            .map_err(|e| CniError::new(code::INTERNAL, format!("the thread that reads leases ended: {e}")))?;
        // Records that cannot be read are told by each pass.
        Ok(read.map(|networks| self.judge(&networks)).unwrap_or_default())
    }

    /// What to tell. Of a network whose leases cannot be read, what was told stays.
    fn judge(&mut self, networks: &[NetworkUsage]) -> Vec<Report> {
        let mut reports = Vec::new();
        self.told.retain(|(network, _)| networks.iter().any(|known| known.network == *network));
        for NetworkUsage { network, sets } in networks {
            let Ok(sets) = sets else { continue };
            self.told.retain(|(of, set)| of != network || *set < sets.len());
            for (index, set) in sets.iter().enumerate() {
                let key = (network.clone(), index);
                if !is_exhausted(set) {
                    self.told.remove(&key);
                } else if self.told.insert(key) {
                    reports.push(Report::exhausted(network, set));
                }
            }
        }
        reports
    }
}

/// An ADD takes an address that cools down if there is no other.
fn is_exhausted(set: &[Usage]) -> bool {
    set.iter().all(|usage| usage.used + usage.quarantined >= usage.total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(used: u128, quarantined: u128) -> Usage {
        Usage { range: "172.20.56.16/28".into(), used, cooling: 1, quarantined, total: 14, shared: None }
    }

    fn network(sets: Vec<Vec<Usage>>) -> [NetworkUsage; 1] {
        [NetworkUsage { network: "pods".into(), sets: Ok(sets) }]
    }

    #[tokio::test]
    async fn a_set_without_a_free_address_is_told_once_until_it_has_one() {
        let mut exhaustion = Exhaustion::begin();
        let mut told = |networks: &[NetworkUsage]| exhaustion.judge(networks).len();
        assert_eq!(told(&network(vec![vec![range(13, 0)]])), 0);
        assert_eq!(told(&network(vec![vec![range(13, 1)]])), 1);
        assert_eq!(told(&network(vec![vec![range(14, 0)]])), 0);
        let unreadable =
            [NetworkUsage { network: "pods".into(), sets: Err(CniError::new(code::IO_FAILURE, "")) }];
        assert_eq!(told(&unreadable), 0);
        assert_eq!(told(&network(vec![vec![range(14, 0)]])), 0);
        assert_eq!(told(&network(vec![vec![range(13, 0)]])), 0);
        assert_eq!(told(&network(vec![vec![range(14, 0)]])), 1);
        // Another range of the same set has addresses.
        assert_eq!(told(&network(vec![vec![range(14, 0), range(2, 0)]])), 0);
        // A set for each family: each is told.
        assert_eq!(told(&network(vec![vec![range(14, 0)], vec![range(14, 0)]])), 2);
        assert_eq!(told(&[]), 0);
    }

    #[tokio::test]
    async fn the_report_names_the_network_and_its_ranges() {
        let text = Exhaustion::begin().judge(&network(vec![vec![range(13, 1)]]))[0].to_string();
        let expected =
            "network pods: no address is free: 172.20.56.16/28: 13 used, 1 cooling, 1 quarantined of 14";
        assert_eq!(text, expected);
    }
}
