//! The node is no router between the network of an uplink and its others: past the firewall between their
//! VLANs, that is.
//!
//! `nft list table inet vlan-bridge-uplinks` shows it: a rule for each of the node's devices on such a
//! network. The table belongs to the node, as the bridge does: it stays when the last pod goes, for its
//! machines are still there.

use cni_conf::network::Network;

use super::nat::matches::{came_by, leaves_elsewhere, no_connection};
use super::nat::ruleset::{BEFORE_FILTER, DNATED, KNOWN};
use crate::nft::{Change, Ct, Expr, Family, Hook, HookPoint, Table, Verdict};

/// Our table.
pub const TABLE: Table = Table { family: Family::Inet, name: "vlan-bridge-uplinks" };

/// Its only chain.
pub const FORWARD: &str = "forward";

/// The devices by which packets come from a network that the node forwards nothing for. With br_netfilter
/// they come by the bridge itself, also on a trunk.
pub fn devices(network: &Network) -> Vec<String> {
    if network.uplink.is_none() {
        return Vec::new();
    }
    let side = network.node_side().map(|(name, _)| name);
    std::iter::once(network.bridge.clone()).chain(side).collect()
}

/// Makes the table, or makes it anew where it is there already, with a rule for each of these devices. Their
/// comments name them.
pub fn table<'a>(devices: impl IntoIterator<Item = &'a String>) -> Vec<Change> {
    let hook = Hook { kind: "filter", point: HookPoint::Forward, priority: BEFORE_FILTER - 1 };
    let mut changes = vec![
        Change::AddTable(TABLE),
        Change::AddChain { table: TABLE, name: FORWARD.into(), hook: Some(hook) },
        Change::FlushChain { table: TABLE, name: FORWARD.into() },
    ];
    changes.extend(devices.into_iter().map(|device| Change::AddRule {
        table: TABLE,
        chain: FORWARD.into(),
        exprs: rule(device),
        comment: device.clone(),
    }));
    changes
}

/// What was sent elsewhere than it was meant for passes (a service, a host port), and so does what belongs to
/// a known connection. What goes out by the device that it came by is bridged, with br_netfilter, or goes to
/// where it came from.
fn rule(device: &str) -> Vec<Expr> {
    [
        came_by(device),
        leaves_elsewhere(device),
        no_connection(Ct::State, KNOWN),
        no_connection(Ct::Status, DNATED),
        vec![Expr::Verdict(Verdict::Drop)],
    ]
    .concat()
}

/// Whether the chain has just the rules of these devices, by their comments.
pub fn is_whole(there: &[String], devices: &[String]) -> bool {
    there.len() == devices.len() && devices.iter().all(|device| there.contains(device))
}
