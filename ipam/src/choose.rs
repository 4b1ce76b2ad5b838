//! Chooses the addresses of an ADD.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use cni_conf::range::RangeSet;
use vlan_bridge_pool::grants::Verdict;

use crate::allocate::prefer_held;
use crate::detect::{BATCH, Detector};
use crate::poke::Question;
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
    /// The requested addresses that a shared pool does not let this node give now, and why.
    pub(crate) addresses: Vec<(IpAddr, Verdict)>,
    /// Why, in words.
    pub(crate) why: String,
}

impl Dry {
    fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.addresses.is_empty()
    }

    /// Whether the agent may change that.
    pub(crate) fn may_end(&self, config: &IpamConfig) -> bool {
        config.pool.is_some() && self.addresses.iter().all(|(_, verdict)| *verdict != Verdict::GiveIfSilent)
    }

    /// What to ask the agent for.
    pub(crate) fn question(&self, network: &str) -> Question {
        let addresses = self.addresses.iter().map(|(addr, _)| *addr).collect();
        Question { network: network.to_owned(), wait: true, sets: self.sets.clone(), addresses }
    }

    /// The error of an ADD that has no patience left. `reason`: what is known of the agent.
    pub(crate) fn error(&self, reason: Option<&str>) -> CniError {
        let reason = reason.map_or(String::new(), |reason| format!("; {reason}"));
        CniError::new(code::TRY_AGAIN_LATER, format!("{}{reason}", self.why))
    }

    /// Puts into words why there is nothing.
    fn explain(
        &mut self,
        store: &mut Store,
        ask: &AddressRequest<'_>,
        probes: bool,
    ) -> Result<(), StoreError> {
        let mut whys = Vec::new();
        for pool in ask.pools(probes).filter(|pool| self.sets.contains(&pool.index)) {
            whys.push(exhausted_message(store, &pool, ask.network)?);
        }
        for (addr, verdict) in &self.addresses {
            let why = match verdict {
                Verdict::Unconfirmed => "is not confirmed by the store",
                Verdict::GiveIfSilent => "may be in use by a lost node's pod, and the network is not probed",
                Verdict::NotGranted | Verdict::Give => "is not granted to this node",
            };
            whys.push(format!("the requested address {addr} {why}"));
        }
        if ask.config.pool.is_none()
            && ask.pools(probes).any(|pool| store.rights(&pool).is_ok_and(|r| r.is_some()))
        {
            whys.push(
                "addresses were granted by a shared pool, and the list has no ipam.pool: put it back".into(),
            );
        }
        self.why = whys.join("; ");
        Ok(())
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
        if let Some(verdict) = refused(store, &pool, addr)? {
            dry.addresses.push((addr, verdict));
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
    if dry.is_empty() {
        return Ok(Choice::Addresses(chosen));
    }
    dry.explain(store, ask, detector.is_some())?;
    Ok(Choice::Dry(dry))
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
        if !is_quarantined && pool.map_or(Ok(None), |pool| refused(store, &pool, addr))?.is_none() {
            left_over.push(addr);
        }
    }
    Ok(left_over)
}

/// Why a shared pool does not let an address be given now. `None` if it does.
fn refused(store: &mut Store, pool: &Pool<'_>, addr: IpAddr) -> Result<Option<Verdict>, StoreError> {
    let rights = store.rights(pool)?.filter(|rights| !rights.offers(addr, pool.probes));
    Ok(rights.map(|rights| rights.verdict(addr)))
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
