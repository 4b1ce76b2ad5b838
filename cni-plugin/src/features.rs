//! The list of features: what an attachment may have on the node besides its veth. Each feature's module
//! has the same few functions. The verbs call them through this list:
//!
//! | function | for |
//! |---|---|
//! | `install` (`ensure`, `allow_addresses`) | ADD |
//! | `difference` (`check`) | CHECK: reports what differs from what ADD installed |
//! | `detach` | DEL, and an ADD that finds leftovers: removes what one attachment has |
//! | `collect`, `remove_stale` | GC: removes leftovers of attachments that are gone |
//! | `repair_and_log` | every ADD, DEL and GC: restores what other programs removed, of any attachment |
//! | `repair` | `vlan-bridgectl repair` and the agent: the same with more checks, see [`Repairs`] |

use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use kernel::Conn;
use kernel::link::Link;
use kernel::nft::Table;
use kernel::remove::DeferredClose;

use crate::ownership::Attachment;
use crate::plan;
use crate::repairs::{Repairs, Subject};
use crate::{boundary, guard, host_access, nat, ports, record};

/// The tables in nf_tables that hold the rules of all features.
pub const TABLES: [Table; 3] =
    [plan::guard::ruleset::TABLE, plan::boundary::TABLE, plan::nat::ruleset::TABLE];

/// The features that an attachment may have according to its configuration. Its records may show more.
pub struct PossibleFeatures<'a> {
    /// The device of its host routes.
    pub host_routes: Option<&'a str>,
    /// A guard.
    pub guard: bool,
    /// NAT rules.
    pub nat: bool,
}

/// The outcome of [`detach`].
pub struct Detached {
    /// The first error.
    pub outcome: Result<(), CniError>,
    /// Sockets that the caller closes later: closing them waits until the kernel has freed the deleted
    /// elements.
    pub sockets: DeferredClose,
    /// The features that were repaired on the way, for all attachments.
    pub already_repaired: AlreadyRepaired,
}

/// The features that a call has already repaired for all attachments, because its own attachment uses them.
#[derive(Clone, Copy, Default)]
pub struct AlreadyRepaired {
    /// The guard.
    pub guard: bool,
    /// NAT.
    pub nat: bool,
}

/// Removes the features of one attachment. Continues after errors.
pub async fn detach(
    node: &Conn,
    attachment: &Attachment<'_>,
    possible: &PossibleFeatures<'_>,
    previous: &AddResult,
) -> Detached {
    let veth = attachment.host_interface();
    let (mut sockets, mut already_repaired) = (DeferredClose::default(), AlreadyRepaired::default());
    let mut outcome = host_access::detach(node, attachment, possible.host_routes, previous).await;
    match guard::detach(node, &veth, possible.guard).await {
        Ok(socket) => {
            already_repaired.guard = socket.is_some();
            sockets.extend(socket);
        }
        Err(e) => {
            already_repaired.guard = true;
            outcome = outcome.and(Err(e));
        }
    }
    match nat::detach(node, &veth, possible.nat).await {
        Ok(socket) => {
            already_repaired.nat = socket.is_some();
            sockets.extend(socket);
        }
        Err(e) => outcome = outcome.and(Err(e)),
    }
    Detached { outcome, sockets, already_repaired }
}

/// Restores what other programs removed from attachments of any network. Errors are logged and do not fail
/// the call. `gone` is the veth of a pod that is being removed.
pub async fn repair_and_log(node: &Conn, already_repaired: AlreadyRepaired, gone: Option<&str>) {
    repair_rules_and_log(node, already_repaired, gone).await;
    boundary::repair_and_log();
    repair_links_and_log(node, None).await;
}

/// The part of [`repair_and_log`] that needs no bridge: rules in the packet filter.
pub async fn repair_rules_and_log(node: &Conn, already_repaired: AlreadyRepaired, gone: Option<&str>) {
    if !already_repaired.guard {
        guard::repair_and_log(node).await;
    }
    if !already_repaired.nat {
        nat::repair_and_log(node, gone).await;
    }
}

/// The part of [`repair_and_log`] that hangs on bridges, which have to be up by then. `seen` is a bridge that
/// the caller has just looked up.
pub async fn repair_links_and_log(node: &Conn, seen: Option<&Link>) {
    ports::repair_missing(node, seen).await;
    // Host routes need their bridge up, which the steps above ensure.
    host_access::repair_and_log(node).await;
}

/// Restores what `repairs` permits of everything that a CHECK of any of the node's attachments would report.
/// Inside the pods' network namespaces, only what follows the node follows its changes. Takes the same locks
/// as ADD and DEL, but only if something differs.
///
/// # Errors
/// No netlink socket could be opened.
pub async fn repair(repairs: &mut Repairs<'_>) -> Result<(), CniError> {
    let node = Conn::open()?;
    // The order matters: routes need their bridge, and rules refer to ports and devices by name.
    let outcome = guard::repair(&node, repairs).await;
    repairs.note(Subject::Guards, outcome);
    let outcome = boundary::repair(repairs);
    repairs.note(Subject::Boundary, outcome);
    let links = match ports::repair(&node, repairs).await {
        Ok(links) => links,
        Err(error) => {
            repairs.note(Subject::Ports, Err(error));
            None
        }
    };
    let outcome = ports::follow_mtu(&node, links, repairs).await;
    repairs.note(Subject::Ports, outcome);
    let outcome = host_access::repair(&node, true, repairs).await;
    repairs.note(Subject::AllHostRoutes, outcome);
    let outcome = host_access::follow(&node, repairs).await;
    repairs.note(Subject::AllHostRoutes, outcome);
    let outcome = nat::repair(&node, repairs).await;
    repairs.note(Subject::Nat, outcome);
    repairs.note(Subject::Records, record::prune());
    record::forget_unused();
    Ok(())
}
