//! GC: releases the leases of attachments that the runtime no longer knows (CNI 1.1, section 2, "GC").

use cni_conf::cni::error::{CniError, code};
use cni_conf::ipam::IpamConfig;
use cni_conf::request::Request;
use cni_skel::lock::LIMIT;

use crate::store::{Holder, Store, StoreError};

/// Releases every lease of the network whose attachment is not in the list. Without a list, GC does nothing.
/// A lease that names only a container stays while any attachment of the container is in the list.
///
/// # Errors
/// A list that cannot be read, before any release. Leases that could not be removed, after all others were.
pub(crate) fn gc(request: &Request) -> Result<(), CniError> {
    let Some(valid) = request.valid_attachments()? else {
        log::info!("no cni.dev/valid-attachments: nothing released");
        return Ok(());
    };
    let Some(mut store) = Store::open(&IpamConfig::data_dir(&request.config), &request.name, LIMIT)? else {
        return Ok(());
    };
    let outcome = store.retain(|holder| match holder {
        Holder::Attachment(owner) => {
            valid.iter().any(|(id, ifname)| *id == owner.container_id && *ifname == owner.ifname)
        }
        Holder::Container(held_by) => valid.iter().any(|(id, _)| id == held_by),
        Holder::Empty => false,
        Holder::Unreadable => true,
    });
    store.finish();
    let (released, errors) = outcome?;
    for addr in &released {
        log::info!("released {addr} of network {}: no valid attachment holds it", request.name);
    }
    report(&request.name, released.len(), &errors)
}

fn report(network: &str, released: usize, errors: &[StoreError]) -> Result<(), CniError> {
    if errors.is_empty() {
        return Ok(());
    }
    let failed = errors.len();
    let msg = format!("{failed} of {} leases of network {network} could not be released", failed + released);
    let details: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(CniError::new(code::IO_FAILURE, msg).details(details.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn reports_every_failure_in_one_error() {
        assert_eq!(report("vlan136", 5, &[]), Ok(()));
        let error = |path: &str| StoreError::Io {
            action: "remove",
            path: path.into(),
            source: io::Error::other("read-only"),
        };
        let error = report("vlan136", 5, &[error("/a"), error("/b")]).unwrap_err();
        assert_eq!(error.msg, "2 of 7 leases of network vlan136 could not be released");
        assert_eq!(error.details, "cannot remove /a: read-only; cannot remove /b: read-only");
    }
}
