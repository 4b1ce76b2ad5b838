//! ADD: one address of each range set, or none at all.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::{AddResult, Dns, IpConfig};
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;
use serde_json::Value;

use crate::allocate::assign;
use crate::choose::{AddressRequest, Choice, Dry, batch, choose, unavailable};
use crate::detect::{BATCH, Detector};
use crate::patience::{self, Patience};
use crate::resolv_conf;
use crate::store::{ClaimOutcome, HolderRecord, Netns, Owner, Pool, Store, StoreError, clock};

/// The outcome of one attempt to lease addresses.
enum Outcome {
    /// The attachment now holds these addresses. The sets of a shared pool whose stock is low.
    Leased(Vec<IpConfig>, Vec<usize>),
    /// These addresses must be probed first.
    Unprobed(Vec<IpAddr>),
    /// There is not enough.
    Dry(Dry),
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
    let ips = lease(&ask, &mut detector)?;
    let result = AddResult { ips, routes: config.routes.clone(), dns, ..AddResult::default() };
    result.to_json(request.version).inspect_err(|_| match Store::create(&config.data_dir, &request.name) {
        Ok(mut store) => {
            release(&mut store, &ask.owner);
            store.finish();
        }
        Err(error) => log::error!("{error}; DEL or GC will release the leases of {}", ask.owner),
    })
}

/// Looks for addresses until there are some, or until no more can be expected.
fn lease(ask: &AddressRequest<'_>, detector: &mut Option<Detector<'_>>) -> Result<Vec<IpConfig>, CniError> {
    let AddressRequest { network, config, .. } = *ask;
    let mut patience = None;
    loop {
        let mut store = Store::create(&config.data_dir, network)?;
        let looked = lease_addresses(&mut store, ask, detector.as_ref());
        if let Err(error) = &looked
            && error.code != code::ALREADY_ALLOCATED
        {
            release(&mut store, &ask.owner);
        }
        store.finish();
        match (looked?, &mut *detector) {
            (Outcome::Leased(ips, low), _) => {
                if !low.is_empty() {
                    patience::note_low(&config.data_dir, network, low);
                }
                return Ok(ips);
            }
            (Outcome::Dry(dry), detector) => {
                let Some(pool) = config.pool.as_ref().filter(|_| dry.may_end(config)) else {
                    return Err(dry.error(None));
                };
                // Others may have what they need.
                detector.iter_mut().for_each(Detector::give_way);
                let patience = patience.get_or_insert_with(|| Patience::begin(&config.data_dir, pool.wait));
                if !patience.ask(dry.question(network)) {
                    return Err(dry.error(Some(patience.reason())));
                }
            }
            (Outcome::Unprobed(batch), Some(detector)) => detector.probe_or_wait(&ask.owner, &batch)?,
            // Without a detector, no address needs a probe.
            (Outcome::Unprobed(_), None) => {}
        }
    }
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
        let chosen = match choose(store, ask, &held, detector)? {
            Choice::Addresses(chosen) => chosen,
            Choice::Dry(dry) => return Ok(Outcome::Dry(dry)),
        };
        if detector.is_some() && chosen.iter().any(|addr| !store.is_clear(*addr)) {
            let alone = detector.is_some_and(Detector::has_rivals);
            return Ok(Outcome::Unprobed(batch(store, ask, &chosen, if alone { 1 } else { BATCH })?));
        }
        let others: Vec<IpAddr> = held.iter().copied().filter(|addr| !chosen.contains(addr)).collect();
        store.release_some(&ask.owner, &others)?;
        if let Some(ips) = claim_all(store, ask, &chosen)? {
            return Ok(Outcome::Leased(ips, low(store, ask)?));
        }
    }
}

/// The sets of a shared pool that have few addresses left.
fn low(store: &mut Store, ask: &AddressRequest<'_>) -> Result<Vec<usize>, StoreError> {
    let Some(shared) = &ask.config.pool else { return Ok(Vec::new()) };
    let mut low = Vec::new();
    for pool in Pool::all(ask.config) {
        if store.queued(&pool)? <= shared.low {
            low.push(pool.index);
        }
    }
    Ok(low)
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
