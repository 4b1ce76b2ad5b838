//! ADD: one address of each range set, all or none.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::{AddResult, Dns, IpConfig};
use cni_conf::ipam::IpamConfig;
use cni_conf::range::RangeSet;
use cni_conf::request::Request;
use serde_json::Value;

use crate::allocate::{again, assign};
use crate::resolv_conf;
use crate::store::{Claim, Netns, Owner, Pool, Record, Store, StoreError, Usage, clock};

/// Claims an address of each set for the attachment and answers with the result in the caller's version.
///
/// # Errors
/// [`code::ALREADY_ALLOCATED`] when the attachment holds an address, [`code::ADDRESS_UNAVAILABLE`] for a requested
/// address that cannot be had, [`code::TRY_AGAIN_LATER`] when a set is used up. Nothing stays claimed.
pub(crate) fn add(request: &Request) -> Result<Value, CniError> {
    let config = IpamConfig::parse(&request.config)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    config.check_version(request.version)?;
    let wanted = assign(&request.requested_ips()?, &config.ranges)?;
    let dns = config.resolv_conf.as_deref().map_or(Ok(Dns::default()), resolv_conf::read)?;

    let owner = Owner::of(request);
    let record = describe(request);
    let mut store = Store::create(&config.data_dir, &request.name)?;
    let outcome = claim_all(&mut store, &config, request, &owner, record, &wanted).and_then(|ips| {
        let result = AddResult { ips, routes: config.routes.clone(), dns, ..AddResult::default() };
        result.to_json(request.version)
    });
    if let Err(error) = &outcome
        && error.code != code::ALREADY_ALLOCATED
        && let Err(error) = store.release(&owner)
    {
        log::error!("{error}; DEL or GC will release what {owner} holds");
    }
    store.finish();
    outcome
}

/// One address of each set.
fn claim_all(
    store: &mut Store,
    config: &IpamConfig,
    request: &Request,
    owner: &Owner,
    mut record: Record,
    wanted: &[Option<IpAddr>],
) -> Result<Vec<IpConfig>, CniError> {
    let held = store.held_by(owner)?;
    if let Some(addr) = held.first()
        && !store.is_left_over(owner, &held)?
    {
        let msg = format!("{owner} holds {addr} of network {} already: DEL comes first", request.name);
        return Err(CniError::new(code::ALREADY_ALLOCATED, msg));
    }
    // What was left over is given to its own attachment again, and to nobody else.
    let wanted = again(wanted, &held, &config.ranges);
    let others: Vec<IpAddr> = held.into_iter().filter(|addr| !wanted.contains(&Some(*addr))).collect();
    store.release_some(owner, &others)?;
    let mut ips = Vec::new();
    for (i, (set, wanted)) in config.ranges.iter().zip(&wanted).enumerate() {
        let mut claim = |store: &mut Store, addr| store.claim(addr, owner, &mut record);
        let addr = match wanted {
            Some(addr) => claim_requested(*addr, set, claim(store, *addr)?)?,
            None => {
                let pool = Pool { index: i, set, cooldown: config.cooldown };
                claim_next(store, &pool, &request.name, claim)?
            }
        };
        // Only ranges of the set yield addresses, so there always is one.
        let Some(range) = set.range_of(addr) else { continue };
        ips.push(IpConfig { address: range.with_prefix(addr), gateway: range.gateway, interface: None });
        if let Err(error) = store.remember(i, addr) {
            // A hint for host-local where to go on.
            log::warn!("{error}");
        }
    }
    Ok(ips)
}

fn claim_requested(addr: IpAddr, set: &RangeSet, claim: Claim) -> Result<IpAddr, CniError> {
    match claim {
        Claim::Won | Claim::AlreadyMine => Ok(addr),
        Claim::Taken => {
            let msg = format!("the requested address {addr} of {set} is in use");
            Err(CniError::new(code::ADDRESS_UNAVAILABLE, msg))
        }
    }
}

fn claim_next(
    store: &mut Store,
    pool: &Pool<'_>,
    network: &str,
    mut claim: impl FnMut(&mut Store, IpAddr) -> Result<Claim, StoreError>,
) -> Result<IpAddr, CniError> {
    while let Some(addr) = next(store, pool)? {
        match claim(store, addr)? {
            Claim::Won | Claim::AlreadyMine => return Ok(addr),
            // By somebody who does not know the lock. It is not offered again.
            Claim::Taken => log::warn!("{addr} of network {network} is in use, though it was free"),
        }
    }
    let usage: Vec<String> = store.usage(pool)?.iter().map(Usage::to_string).collect();
    let msg = format!("no free address in network {network}: {}", usage.join("; "));
    Err(CniError::new(code::TRY_AGAIN_LATER, msg))
}

/// The next address of a set. Before there is none, dead owners give back what they have.
pub(crate) fn next(store: &mut Store, pool: &Pool<'_>) -> Result<Option<IpAddr>, StoreError> {
    match store.next_free(pool)? {
        None if store.reclaim()?.is_empty() => Ok(None),
        None => store.next_free(pool),
        some => Ok(some),
    }
}

/// What the record says of the attachment besides its addresses. The namespace is looked at and not opened.
fn describe(request: &Request) -> Record {
    let args = &request.env.args;
    Record {
        since: clock(),
        netns: Netns::see(&request.env.netns),
        pod: args.k8s_pod_namespace.clone().zip(args.k8s_pod_name.clone()),
        ..Record::default()
    }
}
