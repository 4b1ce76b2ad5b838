//! Which shares of which pools the installed lists name. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cni_conf::ipam::IpamConfig;
use cni_conf::pool::{PoolConfig, PoolStore};
use vlan_bridge_ipam::shares::PoolShare;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::water::Marks;

use super::InstalledNetwork;

/// What follows from the lists.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// None if no network has a pool.
    pub(super) node: Option<NodePlan>,
    /// Networks that cannot use their pools, and why.
    pub(super) problems: Vec<String>,
}

/// The pools of a node. They are in one store, and their networks keep leases in one folder.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    pub(super) node: Name,
    pub(super) store: PoolStore,
    pub(super) data_dir: PathBuf,
    pub(super) shares: Vec<PooledShare>,
}

/// One range set of one network.
#[derive(Clone, Debug)]
pub(super) struct PooledShare {
    /// The holder's name in the store: the network's, with the set's number if it is not the first.
    pub(super) holder: Name,
    pub(super) network: String,
    pub(super) set: usize,
    pub(super) pool: Name,
    config: IpamConfig,
    pub(super) marks: Marks,
    pub(super) lends_home: bool,
}

impl Plan {
    /// The plan for the networks of the installed lists.
    pub(super) fn of(node: &str, networks: &[InstalledNetwork]) -> Plan {
        let mut plan = Plan::default();
        for InstalledNetwork { name, config } in networks {
            let added = match config {
                Ok(config) => config.pool.as_ref().map_or(Ok(()), |pool| plan.add(node, name, config, pool)),
                Err(why) => Err(why.clone()),
            };
            plan.problems
                .extend(added.err().map(|why| format!("network {name}: its pool is not used: {why}")));
        }
        plan
    }

    fn add(&mut self, node: &str, name: &str, config: &IpamConfig, pool: &PoolConfig) -> Result<(), String> {
        let node = Name::new(node).map_err(|error| format!("the node's name {error}"))?;
        let mut shares = Vec::new();
        for (share, of_pool) in PoolShare::all(config, name).zip(&pool.names) {
            shares.push(PooledShare {
                holder: Name::new(&share.holder()).map_err(|error| error.to_string())?,
                network: name.to_owned(),
                set: share.set(),
                pool: Name::new(of_pool).map_err(|error| error.to_string())?,
                config: config.clone(),
                marks: Marks { low: pool.low, high: pool.high, max: pool.max },
                lends_home: pool.lends_home,
            });
        }
        let first = self.node.get_or_insert_with(|| NodePlan {
            node,
            store: pool.store.clone(),
            data_dir: config.data_dir.clone(),
            shares: Vec::new(),
        });
        let same = |other: &PooledShare| shares.iter().find(|share| share.holder == other.holder);
        if first.store != pool.store {
            return Err("a node uses one store, and the pool of another network is in another".to_owned());
        }
        if first.data_dir != config.data_dir {
            let first = first.data_dir.display();
            return Err(format!("ipam.dataDir is not {first}, as of the node's other networks with pools"));
        }
        if let Some(share) = first.shares.iter().find_map(same) {
            return Err(format!("{} is the holder's name of another range set", share.holder));
        }
        first.shares.extend(shares);
        Ok(())
    }
}

impl NodePlan {
    /// The pools, each once.
    pub(super) fn pools(&self) -> Vec<Name> {
        let pools: BTreeSet<&Name> = self.shares.iter().map(|share| &share.pool).collect();
        pools.into_iter().cloned().collect()
    }
}

impl PooledShare {
    /// Its files and leases. There always are some: the plan has as many shares as there are range sets.
    pub(super) fn files(&self) -> Option<PoolShare<'_>> {
        PoolShare::all(&self.config, &self.network).nth(self.set)
    }
}
