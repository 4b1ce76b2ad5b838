//! Records in `/run` of what an attachment has outside its veth. Rules in the node's packet filter do not
//! show their configuration, and a firewall restart removes them.
//!
//! One file per attachment and kind of record, in a folder for each network namespace that is a node:
//!
//! - [`NatRecord`][]: `/run/vlan-bridge/attachments/NODE/VETH`
//! - [`GuardRecord`][]: `/run/vlan-bridge/guards/NODE/VETH`
//! - [`HostRoutesRecord`][]: `/run/vlan-bridge/ways/NODE/DEVICE/VETH`
//! - `ports::attached`: `/run/vlan-bridge/ports/NODE/BRIDGE/VETH`
//!
//! Each feature has its own kind, because it is removed from the node with the last record of its kind. An
//! attachment without a feature has no record of that kind. Like the rules, the records are lost at reboot.
//!
//! The files are JSON objects. Unknown keys are ignored, and [`PodInterface`]'s keys are in all kinds but
//! the last, so that an earlier and a later release read each other's files.

mod files;
mod guard;
mod host_routes;
mod kept;
mod nat;
mod pod;
mod prune;

pub use files::{PerDevice, Record, Records};
pub(crate) use files::{create_folder, node_folder, remove_file_if_any, remove_node_folder};
pub use guard::GuardRecord;
pub use host_routes::HostRoutesRecord;
pub(crate) use kept::forget_unused;
pub use nat::{NatRecord, as_ipv4};
pub use pod::PodInterface;
pub use prune::prune;

use cni_conf::cni::error::CniError;

/// The interfaces in all records of this node but those of ports, by veth name. A veth may be named more
/// than once.
pub fn pods() -> Result<Vec<(String, PodInterface)>, CniError> {
    let mut pods = Vec::new();
    pods.extend(
        Records::<NatRecord>::of_this_node()?.all().into_iter().map(|(veth, of)| (veth, of.pod.clone())),
    );
    pods.extend(
        Records::<GuardRecord>::of_this_node()?.all().into_iter().map(|(veth, of)| (veth, of.pod.clone())),
    );
    for (_, records) in Records::<HostRoutesRecord>::by_device()? {
        pods.extend(records.all().into_iter().map(|(veth, of)| (veth, of.pod.clone())));
    }
    Ok(pods)
}

#[cfg(test)]
mod tests;
