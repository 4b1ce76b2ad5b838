//! All that calls put back by the way, in one go and without a pod that comes or goes: for `vlan-bridgectl repair`.

use cni_conf::cni::error::CniError;

use crate::net::Conn;
use crate::{boundary, guard, host_access, nat, ports, record};

/// Puts back what CHECKs of the node's attachments would complain of, but for what is in the pods' own namespaces. Returns what was put back in
/// words, and the errors of what could not be. Takes the locks that ADD and DEL take.
///
/// # Errors
/// No socket to the kernel.
pub async fn all() -> Result<(Vec<String>, Vec<CniError>), CniError> {
    let node = Conn::open()?;
    let (mut repaired, mut failed) = (Vec::new(), Vec::new());
    // In this order: routes hang on bridges, and rules know ports and devices by their names.
    for outcome in [
        guard::repair(&node).await,
        boundary::repair().map(|what| what.into_iter().collect()),
        ports::repair(&node, true).await,
        host_access::repair(&node, true).await,
        nat::repair(&node).await,
        record::prune().map(|()| Vec::new()),
    ] {
        match outcome {
            Ok(what) => repaired.extend(what),
            Err(e) => failed.push(e),
        }
    }
    Ok((repaired, failed))
}
