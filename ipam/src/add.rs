//! ADD: one address of each range set, or none at all.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::{AddResult, Dns, IpConfig};
use cni_conf::ipam::IpamConfig;
use cni_conf::range::RangeSet;
use cni_conf::request::Request;
use serde_json::Value;

use crate::allocate::{assign, prefer_held};
use crate::detect::{BATCH, Detector};
use crate::resolv_conf;
use crate::store::{ClaimOutcome, HolderRecord, Netns, Owner, Pool, Store, StoreError, Usage, clock};

/// The parameters of one ADD.
struct AddressRequest<'a> {
    network: &'a str,
    config: &'a IpamConfig,
    owner: Owner,
    /// The requested address of each set.
    requested: Vec<Option<IpAddr>>,
    record: HolderRecord,
}

/// The outcome of one attempt to lease addresses.
enum Outcome {
    /// The attachment now holds these addresses.
    Leased(Vec<IpConfig>),
    /// These addresses must be probed first.
    Unprobed(Vec<IpAddr>),
}

/// Leases an address of each set for the attachment. Returns the result in the version of the configuration.
///
/// # Errors
/// [`code::ALREADY_ALLOCATED`] if the attachment holds an address, [`code::ADDRESS_UNAVAILABLE`] for a
/// requested address that is not available, [`code::TRY_AGAIN_LATER`] if a set is used up. After an error, no
/// new lease remains.
pub(crate) fn add(request: &Request) -> Result<Value, CniError> {
    let config = IpamConfig::parse(&request.config)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    config.check_version(request.version)?;
    let requested = assign(&request.requested_ips()?, &config.ranges)?;
    let dns = config.resolv_conf.as_deref().map_or(Ok(Dns::default()), resolv_conf::read)?;
    let mut detector = Detector::prepare(&config, &request.name)?;
    let (owner, record) = (Owner::of(request), describe(request));
    let ask = AddressRequest { network: &request.name, config: &config, owner, requested, record };
    let ips = loop {
        let mut store = Store::create(&config.data_dir, &request.name)?;
        let looked = lease_addresses(&mut store, &ask, detector.as_ref());
        if let Err(error) = &looked
            && error.code != code::ALREADY_ALLOCATED
        {
            release(&mut store, &ask.owner);
        }
        store.finish();
        match (looked?, &mut detector) {
            (Outcome::Leased(ips), _) => break ips,
            (Outcome::Unprobed(batch), Some(detector)) => detector.probe_or_wait(&ask.owner, &batch)?,
            // Without a detector, no address needs a probe.
            (Outcome::Unprobed(_), None) => {}
        }
    };
    let result = AddResult { ips, routes: config.routes.clone(), dns, ..AddResult::default() };
    result.to_json(request.version).inspect_err(|_| match Store::create(&config.data_dir, &request.name) {
        Ok(mut store) => {
            release(&mut store, &ask.owner);
            store.finish();
        }
        Err(error) => log::error!("{error}; DEL or GC will release the leases of {}", ask.owner),
    })
}

fn release(store: &mut Store, owner: &Owner) {
    if let Err(error) = store.release(owner) {
        log::error!("{error}; DEL or GC will release the leases of {owner}");
    }
}

/// Leases one address of each set, or returns the addresses to probe first.
fn lease_addresses(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    detector: Option<&Detector<'_>>,
) -> Result<Outcome, CniError> {
    let held = store.held_by(&ask.owner)?;
    if let Some(addr) = held.first()
        && !store.is_left_over(&ask.owner, &held)?
    {
        let msg =
            format!("{} already holds {addr} of network {}: it needs a DEL first", ask.owner, ask.network);
        return Err(CniError::new(code::ALREADY_ALLOCATED, msg));
    }
    loop {
        let chosen = choose(store, ask, &held, detector)?;
        if detector.is_some() && chosen.iter().any(|addr| !store.is_clear(*addr)) {
            let alone = detector.is_some_and(Detector::has_rivals);
            return Ok(Outcome::Unprobed(batch(store, ask, &chosen, if alone { 1 } else { BATCH })?));
        }
        let others: Vec<IpAddr> = held.iter().copied().filter(|addr| !chosen.contains(addr)).collect();
        store.release_some(&ask.owner, &others)?;
        if let Some(ips) = claim_all(store, ask, &chosen)? {
            return Ok(Outcome::Leased(ips));
        }
    }
}

/// The address of each set: the requested one, the one left over from the attachment's earlier ADD, or the
/// next free one.
fn choose(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    held: &[IpAddr],
    detector: Option<&Detector<'_>>,
) -> Result<Vec<IpAddr>, CniError> {
    let mut held = held.to_vec();
    held.retain(|addr| detector.is_none() || store.quarantined(*addr).is_none());
    let mut chosen = Vec::new();
    for (pool, wanted) in ask.pools().zip(prefer_held(&ask.requested, &held, &ask.config.ranges)) {
        let Some(addr) = wanted else {
            match next(store, &pool)? {
                Some(addr) => chosen.push(uncontested(store, &pool, addr, detector)?),
                None => {
                    return Err(CniError::new(
                        code::TRY_AGAIN_LATER,
                        exhausted_message(store, &pool, ask.network)?,
                    ));
                }
            }
            continue;
        };
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
    Ok(chosen)
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
fn batch(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    chosen: &[IpAddr],
    most: usize,
) -> Result<Vec<IpAddr>, CniError> {
    let mut batch = Vec::new();
    for (pool, first) in ask.pools().zip(chosen) {
        let mut of_set = store.upcoming(&pool, most)?;
        of_set.retain(|addr| addr != first);
        of_set.insert(0, *first);
        of_set.truncate(most);
        batch.extend(of_set);
    }
    batch.retain(|addr| !store.is_clear(*addr));
    Ok(batch)
}

impl AddressRequest<'_> {
    fn pools(&self) -> impl Iterator<Item = Pool<'_>> {
        let cooldown = self.config.cooldown;
        self.config.ranges.iter().enumerate().map(move |(index, set)| Pool { index, set, cooldown })
    }
}

/// Claims the chosen address of each set. `None` if another process took a free address meanwhile.
fn claim_all(
    store: &mut Store,
    ask: &AddressRequest<'_>,
    chosen: &[IpAddr],
) -> Result<Option<Vec<IpConfig>>, CniError> {
    let (mut ips, mut record) = (Vec::new(), ask.record.clone());
    for (i, (set, addr)) in ask.config.ranges.iter().zip(chosen).enumerate() {
        if store.claim(*addr, &ask.owner, &mut record)? == ClaimOutcome::Taken {
            if ask.requested[i].is_some() {
                return Err(unavailable(*addr, set, "in use"));
            }
            // The other process did not use the lock. The store does not offer the address again.
            log::warn!("{addr} of network {} was taken by a program that does not use the lock", ask.network);
            store.release(&ask.owner)?;
            return Ok(None);
        }
        // All chosen addresses come from the set's ranges, so a range always exists.
        let Some(range) = set.range_of(*addr) else { continue };
        ips.push(IpConfig { address: range.with_prefix(*addr), gateway: range.gateway, interface: None });
        if let Err(error) = store.set_last_reserved(i, *addr) {
            // The file only tells host-local where to continue.
            log::warn!("{error}");
        }
    }
    Ok(Some(ips))
}

fn unavailable(addr: IpAddr, set: &RangeSet, why: &str) -> CniError {
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

/// The attachment's record without its addresses. The namespace is not opened.
fn describe(request: &Request) -> HolderRecord {
    let args = &request.env.args;
    HolderRecord {
        since: clock(),
        netns: Netns::see(&request.env.netns),
        pod: args.pod(),
        ..HolderRecord::default()
    }
}
