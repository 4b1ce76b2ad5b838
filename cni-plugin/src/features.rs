//! The list of features: what an attachment may have on the node besides its veth. Each has a module with the
//! same few functions, which the verbs call through this list:
//!
//! | function | for |
//! |---|---|
//! | `install` (`ensure`, `allow_addresses`) | ADD |
//! | `difference` (`check`) | CHECK: what is no longer as ADD left it |
//! | `detach` | DEL, and an ADD that finds leftovers: what one attachment has |
//! | `collect`, `remove_stale` | GC: what is left of attachments that are gone |
//! | `repair_and_log` | every ADD, DEL and GC: what others have removed, of any attachment |
//! | `repair` | `vlan-bridgectl repair`: the same with a closer look, and in words |

use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use kernel::Conn;
use kernel::remove::DeferredClose;

use crate::ownership::Attachment;
use crate::{boundary, guard, host_access, nat, ports, record};

/// What an attachment may have, by its configuration. What its records say is found besides.
pub struct MayHave<'a> {
    /// The device that its host routes are on.
    pub host_routes: Option<&'a str>,
    /// A guard.
    pub guard: bool,
    /// Rules of NAT.
    pub nat: bool,
}

/// What became of an attachment's features.
pub struct Detached {
    /// The first error.
    pub outcome: Result<(), CniError>,
    /// Sockets whose closing would wait for what was deleted.
    pub sockets: DeferredClose,
    /// What was looked after, of all attachments.
    pub looked_after: LookedAfter,
}

/// The features that a call has looked after by itself: it has some of its own, and finds out what is missing
/// of others'.
#[derive(Clone, Copy, Default)]
pub struct LookedAfter {
    /// The guard.
    pub guard: bool,
    /// NAT.
    pub nat: bool,
}

/// Removes what one attachment has. Goes on past errors.
pub async fn detach(
    node: &Conn,
    attachment: &Attachment<'_>,
    may_have: &MayHave<'_>,
    previous: &AddResult,
) -> Detached {
    let veth = attachment.host_interface();
    let (mut sockets, mut looked_after) = (DeferredClose::default(), LookedAfter::default());
    let mut outcome = host_access::detach(node, attachment, may_have.host_routes, previous).await;
    match guard::detach(node, &veth, may_have.guard).await {
        Ok(socket) => {
            looked_after.guard = socket.is_some();
            sockets.extend(socket);
        }
        Err(e) => {
            looked_after.guard = true;
            outcome = outcome.and(Err(e));
        }
    }
    match nat::detach(node, &veth, may_have.nat).await {
        Ok(socket) => {
            looked_after.nat = socket.is_some();
            sockets.extend(socket);
        }
        Err(e) => outcome = outcome.and(Err(e)),
    }
    Detached { outcome, sockets, looked_after }
}

/// Restores what others have removed from attachments, of whichever network. The pod that the call is about
/// does not fail over it: what cannot be restored is logged. `gone` is the veth of a pod that is just going.
pub async fn repair_and_log(node: &Conn, looked_after: LookedAfter, gone: Option<&str>) {
    if !looked_after.guard {
        guard::repair_and_log(node).await;
    }
    if !looked_after.nat {
        nat::repair_and_log(node, gone).await;
    }
    boundary::repair_and_log();
    ports::repair_missing(node).await;
    // These hang on bridges, which are up by now.
    host_access::repair_and_log(node).await;
}

/// Restores what CHECKs of the node's attachments would complain of, but for what is in the pods' own
/// namespaces. Returns what was restored in words, and the errors of what could not be. Takes the locks that
/// ADD and DEL take.
///
/// # Errors
/// No socket to the kernel.
pub async fn repair_all() -> Result<(Vec<String>, Vec<CniError>), CniError> {
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
