//! CHECK: the attachment still holds an address.

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;
use cni_skel::lock::LIMIT;

use crate::store::{Owner, Store, StoreError};

/// Looks for a lease of the attachment. The lease may be outside the configured ranges: a slice may move
/// while containers keep their addresses.
///
/// # Errors
/// [`code::CHECK_FAILED`] if there is no lease.
pub(crate) fn check(request: &Request) -> Result<(), CniError> {
    let dir = IpamConfig::data_dir(&request.config);
    let owner = Owner::of(request);
    if let Some(mut store) = Store::open(&dir, &request.name, LIMIT)? {
        let held = store.held_by(&owner);
        store.finish();
        match held {
            Err(error @ StoreError::Elsewhere { .. }) => {
                return Err(CniError::new(code::CHECK_FAILED, error.to_string()));
            }
            Err(error) => return Err(error.into()),
            Ok(held) if held.is_empty() => {}
            Ok(_) => return Ok(()),
        }
    }
    let msg = format!("{owner} holds no address of network {} in {}", request.name, dir.display());
    Err(CniError::new(code::CHECK_FAILED, msg))
}
