//! A range set, as the store sees it.

use cni_conf::ipam::IpamConfig;
use cni_conf::range::RangeSet;
use vlan_bridge_pool::runs::Runs;

/// A range set of the configuration, and its cooldown.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// Its index among the sets. host-local numbers its files by it.
    pub index: usize,
    /// The set.
    pub set: &'a RangeSet,
    /// How long a released address cools down, in seconds.
    pub cooldown: u32,
    /// Whether addresses come from a shared pool (`ipam.pool`).
    pub is_shared: bool,
    /// Whether the home addresses may be lent to other nodes.
    pub lends_home: bool,
    /// Whether the network is probed for an address before it is assigned.
    pub probes: bool,
}

impl Pool<'_> {
    /// The sets of a configuration.
    pub fn all(config: &IpamConfig) -> impl Iterator<Item = Pool<'_>> {
        let (cooldown, is_shared) = (config.cooldown, config.pool.is_some());
        let lends_home = config.pool.as_ref().is_some_and(|pool| pool.lends_home);
        let probes = config.detection.is_some();
        let sets = config.ranges.iter().enumerate();
        sets.map(move |(index, set)| Pool { index, set, cooldown, is_shared, lends_home, probes })
    }

    /// The home addresses of a set of a shared pool.
    pub(crate) fn home(&self) -> Runs {
        let mut home = Runs::EMPTY;
        let homes = self.set.0.iter().filter_map(|range| range.home);
        homes.for_each(|(first, last)| home.insert_run(first, last));
        home
    }
}
