//! DEL: gives back what an attachment holds.

use cni_conf::cni::error::CniError;
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;
use cni_skel::lock::LIMIT;

use crate::store::{Owner, Store};

/// Releases every address of the attachment. Nothing to release is success: DEL may come twice, or after an ADD that
/// never came this far. Of the configuration only the name and `dataDir` are read, so that no mistake elsewhere
/// leaks an address.
///
/// # Errors
/// When the store cannot be read or a lease cannot be removed.
pub(crate) fn del(request: &Request) -> Result<(), CniError> {
    let Some(mut store) = Store::open(&IpamConfig::data_dir(&request.config), &request.name, LIMIT)? else {
        return Ok(());
    };
    let released = store.release(&Owner::of(request));
    store.finish();
    for addr in released? {
        log::info!("released {addr} of network {}", request.name);
    }
    Ok(())
}
