//! STATUS: whether an ADD could succeed now (CNI 1.1, section 2, "STATUS").

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;

use crate::choose::{exhausted_message, next};
use crate::store::{Pool, Store, StoreError};

/// Checks the configuration, and that a lease could be written. Exhausted ranges are an error only with
/// `statusOnExhaustion`, because the runtime would report the whole node as not ready.
///
/// # Errors
/// [`code::INVALID_CONFIG`] as in ADD, [`code::PLUGIN_NOT_AVAILABLE`] if the store is not writable, or is
/// exhausted.
pub(crate) fn status(request: &Request) -> Result<(), CniError> {
    let config = IpamConfig::parse(&request.config)?;
    let unavailable = |error: StoreError| CniError::new(code::PLUGIN_NOT_AVAILABLE, error.to_string());
    Store::probe(&config.data_dir, &request.name).map_err(unavailable)?;
    if !config.status_on_exhaustion {
        return Ok(());
    }
    let mut store = Store::create(&config.data_dir, &request.name).map_err(unavailable)?;
    let outcome = exhausted(&mut store, &config, &request.name);
    store.finish();
    match outcome.map_err(unavailable)? {
        None => Ok(()),
        Some(msg) => Err(CniError::new(code::PLUGIN_NOT_AVAILABLE, msg)),
    }
}

/// The message for the first set that has no free address.
fn exhausted(store: &mut Store, config: &IpamConfig, network: &str) -> Result<Option<String>, StoreError> {
    for pool in Pool::all(config) {
        if next(store, &pool)?.is_none() {
            return exhausted_message(store, &pool, network).map(Some);
        }
    }
    Ok(None)
}
