//! Chooses the addresses of an ADD.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use cni_conf::range::RangeSet;

use crate::allocate::prefer_held;
use crate::detect::{BATCH, Detector};
use crate::store::{HolderRecord, Owner, Pool, Store, StoreError, Usage};

/// The parameters of one ADD.
pub(crate) struct AddressRequest<'a> {
    pub(crate) network: &'a str,
    pub(crate) config: &'a IpamConfig,
    pub(crate) owner: Owner,
    /// The requested address of each set.
    pub(crate) requested: Vec<Option<IpAddr>>,
    pub(crate) record: HolderRecord,
}

impl AddressRequest<'_> {
    /// The sets. `probes`: whether this ADD can probe for addresses.
    fn pools(&self, probes: bool) -> impl Iterator<Item = Pool<'_>> {
        Pool::all(self.config).map(move |pool| Pool { probes, ..pool })
    }
}

/// What was chosen.
pub(crate) enum Choice {
    /// An address of each set.
    Addresses(Vec<IpAddr>),
    /// Not all sets have one.
    Dry(Dry),
}

/// What an ADD misses.
#[derive(Debug, Default)]
pub(crate) struct Dry {
    /// The sets without a free address.
    pub(crate) sets: Vec<usize>,
    /// The requested addresses that a shared pool does not let this node give now.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Dry {
    fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.addresses.is_empty()
    }

    /// The error of an ADD that misses this.
    pub(crate) fn error(
        &self,
        store: &mut Store,
        ask: &AddressRequest<'_>,
        probes: bool,
    ) -> Result<CniError, StoreError> {
        let is_dry = |pool: &Pool<'_>| self.sets.contains(&pool.index);
        if let Some(pool) = ask.pools(probes).find(is_dry) {
            return Ok(CniError::new(code::TRY_AGAIN_LATER, exhausted_message(store, &pool, ask.network)?));
        }
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let msg = format!("the shared pool does not grant {} to this node", addresses.join(", "));
        Ok(CniError::new(code::TRY_AGAIN_LATER, msg))
    }
}

/// The address of each set: the requested one, the one left over from the attachment's earlier ADD, or the
/// next free one.
pub(crate) fn choose(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    held: &[IpAddr],
    detector: Option<&Detector<'_>>,
) -> Result<Choice, CniError> {
    let held = left_over(store, ask, held, detector)?;
    let (mut chosen, mut dry) = (Vec::new(), Dry::default());
    let wanted = prefer_held(&ask.requested, &held, &ask.config.ranges);
    for (pool, wanted) in ask.pools(detector.is_some()).zip(wanted) {
        let Some(addr) = wanted else {
            match next(store, &pool)? {
                Some(addr) => chosen.push(uncontested(store, &pool, addr, detector)?),
                None => dry.sets.push(pool.index),
            }
            // The agent may find more for this set and for those behind it. Without one, this is the end.
            if !dry.is_empty() && !pool.is_shared {
                break;
            }
            continue;
        };
        if !may_have(store, &pool, addr)? {
            dry.addresses.push(addr);
            continue;
        }
        if store.is_held_by_another(addr, &ask.owner)? {
            return Err(unavailable(addr, pool.set, "in use"));
        }
        // The quarantine may come from an earlier ADD, and its conflict may be over.
        if detector.is_some_and(Detector::has_probed)
            && let Some(seen) = store.quarantined(addr)
        {
            return Err(unavailable(addr, pool.set, &format!("used by {} on the network", seen.mac)));
        }
        chosen.push(addr);
    }
    Ok(if dry.is_empty() { Choice::Addresses(chosen) } else { Choice::Dry(dry) })
}

/// What is left over from the attachment's earlier ADD and may be given again.
fn left_over(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    held: &[IpAddr],
    detector: Option<&Detector<'_>>,
) -> Result<Vec<IpAddr>, StoreError> {
    let mut left_over = Vec::new();
    for addr in held.iter().copied() {
        let pool = ask.pools(detector.is_some()).find(|pool| pool.set.range_of(addr).is_some());
        let is_quarantined = detector.is_some() && store.quarantined(addr).is_some();
        if !is_quarantined && pool.map_or(Ok(true), |pool| may_have(store, &pool, addr))? {
            left_over.push(addr);
        }
    }
    Ok(left_over)
}

/// Whether a shared pool lets an address be given now.
fn may_have(store: &mut Store, pool: &Pool<'_>, addr: IpAddr) -> Result<bool, StoreError> {
    Ok(store.rights(pool)?.is_none_or(|rights| rights.offers(addr, pool.probes)))
}

/// The next address of a set. If other machines probe for it, prefers an address that is known to be unused,
/// then one that no other machine probes for, then a random one.
fn uncontested(
    store: &mut Store,
    pool: &Pool<'_>,
    next: IpAddr,
    detector: Option<&Detector<'_>>,
) -> Result<IpAddr, CniError> {
    let Some(detector) = detector.filter(|detector| detector.is_contested(next)) else { return Ok(next) };
    let upcoming = store.upcoming(pool, BATCH)?;
    let clear = upcoming.iter().copied().find(|addr| store.is_clear(*addr));
    let free = || upcoming.iter().copied().find(|addr| !detector.is_contested(*addr));
    Ok(clear.or_else(free).or_else(|| Detector::random_of(&upcoming)).unwrap_or(next))
}

/// The addresses to probe: the chosen ones that have not been probed, and those that come next, for other
/// ADDs. At most `most` of each set.
pub(crate) fn batch(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    chosen: &[IpAddr],
    most: usize,
) -> Result<Vec<IpAddr>, CniError> {
    let mut batch = Vec::new();
    for (pool, first) in ask.pools(true).zip(chosen) {
        let mut of_set = store.upcoming(&pool, most)?;
        of_set.retain(|addr| addr != first);
        of_set.insert(0, *first);
        of_set.truncate(most);
        batch.extend(of_set);
    }
    batch.retain(|addr| !store.is_clear(*addr));
    Ok(batch)
}

pub(crate) fn unavailable(addr: IpAddr, set: &RangeSet, why: &str) -> CniError {
    CniError::new(code::ADDRESS_UNAVAILABLE, format!("the requested address {addr} of {set} is {why}"))
}

/// A message that a set has no free address, and why.
pub(crate) fn exhausted_message(
    store: &mut Store,
    pool: &Pool<'_>,
    network: &str,
) -> Result<String, StoreError> {
    let usage: Vec<String> = store.usage(pool)?.iter().map(Usage::to_string).collect();
    let aside = store.all_quarantined().into_iter().find(|(addr, ..)| pool.set.range_of(*addr).is_some());
    let who = aside.map_or(String::new(), |(addr, seen, _)| format!(" ({addr} is used by {})", seen.mac));
    let elsewhere = store.elsewhere()?;
    let machines =
        elsewhere.iter().map(|(machine, count)| format!("; {count} belong to another machine, {machine}"));
    let machines: String = machines.collect();
    Ok(format!("no free address in network {network}: {}{machines}{who}", usage.join("; ")))
}

/// The next address of a set. If there is none, releases the leases of dead owners and rebuilds tables that
/// have lost addresses.
pub(crate) fn next(store: &mut Store, pool: &Pool<'_>) -> Result<Option<IpAddr>, StoreError> {
    let mut next = store.next_free(pool)?;
    if next.is_none() && !store.reclaim()?.is_empty() {
        next = store.next_free(pool)?;
    }
    if next.is_none() && store.repair(pool)? {
        next = store.next_free(pool)?;
    }
    Ok(next)
}
