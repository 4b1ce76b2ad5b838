//! STATUS: whether an ADD could work now (CNI 1.1, section 2, "STATUS").

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;

use crate::store::Store;

/// Checks the configuration, and that a lease could be written. Ranges that are used up are no reason to fail: the
/// runtime would report the whole node as not ready.
///
/// # Errors
/// [`code::INVALID_CONFIG`] as ADD, [`code::PLUGIN_NOT_AVAILABLE`] when the store cannot be written.
pub(crate) fn status(request: &Request) -> Result<(), CniError> {
    let config = IpamConfig::parse(&request.config)?;
    Store::probe(&config.data_dir, &request.name)
        .map_err(|error| CniError::new(code::PLUGIN_NOT_AVAILABLE, error.to_string()))
}
