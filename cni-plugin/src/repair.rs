//! All that calls put back by the way, in one go and without a pod that comes or goes: for `vlan-bridgectl
//! repair`.

use cni_conf::cni::error::CniError;
use kernel::Conn;

use crate::{boundary, guard, host_access, nat, ports, record};

/// Puts back what CHECKs of the node's attachments would complain of, but for what is in the pods' own
/// namespaces. Returns what was put back in words, and the errors of what could not be. Takes the locks that
/// ADD and DEL take.
///
/// # Errors
/// No socket to the kernel.
pub async fn all() -> Result<(Vec<String>, Vec<CniError>), CniError> {
    let node = Conn::open()?;
    let (mut repaired, mut failed) = (Vec::new(), Vec::new());
    let mut note = |outcome: Result<Vec<String>, CniError>| match outcome {
        Ok(what) => repaired.extend(what),
        Err(e) => failed.push(e),
    };
    // In this order: routes hang on bridges, and rules know ports and devices by their names.
    note(guard::repair(&node).await);
    note(boundary::repair().map(|what| what.into_iter().collect()));
    match ports::repair(&node, true).await {
        Ok((what, errors)) => {
            note(Ok(what));
            errors.into_iter().for_each(|e| note(Err(e)));
        }
        Err(e) => note(Err(e)),
    }
    note(host_access::repair(&node, true).await);
    note(nat::repair(&node).await);
    note(record::prune().map(|()| Vec::new()));
    Ok((repaired, failed))
}
