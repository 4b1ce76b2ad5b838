//! How many addresses of each range are in which state.

use std::fmt;
use std::net::IpAddr;

use super::Store;
use super::error::{StoreError, at};
use super::pool::Pool;

/// The number of a range's addresses in each state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The range as the configuration names it.
    pub range: String,
    /// Held addresses.
    pub used: u128,
    /// Addresses released a short time ago.
    pub cooling: u128,
    /// Addresses that another machine was seen to use.
    pub quarantined: u128,
    /// All addresses that may be assigned.
    pub total: u128,
    /// What a shared pool grants of the range. These are all that may be assigned. None without a pool.
    pub shared: Option<SharedUsage>,
}

/// What a shared pool grants of a range to this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedUsage {
    /// Home addresses.
    pub home: u128,
    /// Other addresses.
    pub leased: u128,
    /// Those of them that no pod gets now, because the store has not confirmed the grants.
    pub unconfirmed: u128,
    /// Those that no pod gets now, because the network is not probed for them.
    pub unproven: u128,
    /// Held addresses that are not granted, or no more.
    pub withdrawn: u128,
    /// Whether the agent has written grants. Until then home addresses are given.
    pub is_granted: bool,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { range, used, cooling, quarantined, total, shared } = self;
        write!(f, "{range}: {used} used, {cooling} cooling, {quarantined} quarantined of {total}")?;
        shared.as_ref().map_or(Ok(()), |shared| write!(f, " {shared}"))
    }
}

impl fmt::Display for SharedUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SharedUsage { home, leased, unconfirmed, unproven, withdrawn, is_granted } = self;
        if !is_granted {
            return f.write_str("home, and the agent has granted nothing yet");
        }
        write!(f, "granted ({home} home, {leased} leased")?;
        for (count, why) in [
            (unconfirmed, "not confirmed by the store"),
            (unproven, "not given without a probe"),
            (withdrawn, "in use and not granted"),
        ] {
            if *count > 0 {
                write!(f, ", {count} {why}")?;
            }
        }
        f.write_str(")")
    }
}

impl Store {
    /// The usage of each range of a set. Reads the names of all leases.
    ///
    /// # Errors
    /// If a table or the directory cannot be read.
    pub fn usage(&mut self, pool: &Pool<'_>) -> Result<Vec<Usage>, StoreError> {
        let (held, ranges) = (self.addresses()?, self.side.ranges.clone());
        let (rested_since, aside) = (self.rested_since(pool.cooldown), self.quarantined_of(pool)?);
        let rights = self.rights(pool)?;
        let mut usages = Vec::new();
        for range in &pool.set.0 {
            let is_used = |addr: &&IpAddr| range.contains(**addr) && pool.set.offers(**addr);
            let used = held.iter().filter(is_used);
            let shared = rights.as_ref().map(|rights| rights.usage(pool, range, used.clone()));
            let withdrawn = shared.as_ref().map_or(0, |shared| shared.withdrawn);
            let cooling = self.table(range, pool)?.freed_after(rested_since).map_err(at("read", &ranges))?;
            usages.push(Usage {
                range: range.to_string(),
                used: used.count() as u128 - withdrawn,
                cooling: cooling.iter().filter(|rested| !aside.contains(&rested.addr)).count() as u128,
                quarantined: aside.iter().filter(|addr| range.contains(**addr)).count() as u128,
                total: shared.as_ref().map_or_else(|| pool.set.capacity_of(range), |s| s.home + s.leased),
                shared,
            });
        }
        Ok(usages)
    }
}
