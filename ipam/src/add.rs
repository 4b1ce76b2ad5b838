//! ADD: one address of each range set, all or none.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::{AddResult, Dns, IpConfig};
use cni_conf::ipam::IpamConfig;
use cni_conf::range::RangeSet;
use cni_conf::request::Request;
use serde_json::Value;

use crate::allocate::{assign, candidates};
use crate::resolv_conf;
use crate::store::{Claim, Owner, Store};

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

    let store = Store::create(&config.data_dir, &request.name)?;
    let owner = Owner::of(request);
    if let Some(lease) = store.leases()?.into_iter().find(|lease| lease.holder.holds_for(&owner)) {
        let msg =
            format!("{owner} holds {} of network {} already: DEL comes first", lease.addr, request.name);
        return Err(CniError::new(code::ALREADY_ALLOCATED, msg));
    }
    let mut ips = Vec::new();
    let outcome = claim_all(&store, &config, request, &owner, &wanted, &mut ips).and_then(|()| {
        let result =
            AddResult { ips: ips.clone(), routes: config.routes.clone(), dns, ..AddResult::default() };
        result.to_json(request.version)
    });
    if outcome.is_err() {
        give_back(&store, &ips);
    }
    outcome
}

/// One address of each set. What was claimed is in `ips`, on success and on failure.
fn claim_all(
    store: &Store,
    config: &IpamConfig,
    request: &Request,
    owner: &Owner,
    wanted: &[Option<IpAddr>],
    ips: &mut Vec<IpConfig>,
) -> Result<(), CniError> {
    for (i, (set, wanted)) in config.ranges.iter().zip(wanted).enumerate() {
        let addr = match wanted {
            Some(addr) => claim_requested(store, *addr, owner, set)?,
            None => claim_next(store, i, owner, set, &request.name)?,
        };
        // Only ranges of the set yield addresses, so there always is one.
        let Some(range) = set.range_of(addr) else { continue };
        ips.push(IpConfig { address: range.with_prefix(addr), gateway: range.gateway, interface: None });
        if let Err(error) = store.remember(i, addr) {
            // A hint where to go on; without it the search begins at the front.
            log::warn!("{error}");
        }
    }
    Ok(())
}

fn claim_requested(store: &Store, addr: IpAddr, owner: &Owner, set: &RangeSet) -> Result<IpAddr, CniError> {
    match store.claim(addr, owner)? {
        Claim::Won | Claim::AlreadyMine => Ok(addr),
        Claim::Taken => {
            let msg = format!("the requested address {addr} of {set} is in use");
            Err(CniError::new(code::ADDRESS_UNAVAILABLE, msg))
        }
    }
}

fn claim_next(
    store: &Store,
    index: usize,
    owner: &Owner,
    set: &RangeSet,
    network: &str,
) -> Result<IpAddr, CniError> {
    for addr in candidates(set, store.last_reserved(index)) {
        match store.claim(addr, owner)? {
            Claim::Won => return Ok(addr),
            Claim::AlreadyMine | Claim::Taken => {}
        }
    }
    let used = store.leases()?.iter().filter(|lease| set.offers(lease.addr)).count();
    let msg = format!("no free address in {set} of network {network}: {used} of {} in use", set.capacity());
    Err(CniError::new(code::TRY_AGAIN_LATER, msg))
}

fn give_back(store: &Store, ips: &[IpConfig]) {
    for ip in ips {
        if let Err(error) = store.give_back(ip.address.addr()) {
            log::error!("{error}; DEL or GC will release {}", ip.address.addr());
        }
    }
}
