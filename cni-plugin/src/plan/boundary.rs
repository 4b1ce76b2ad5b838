//! The node is no router between the network of an uplink and its others: past the firewall between their
//! VLANs, that is.
//!
//! `nft list table inet vlan-bridge-uplinks` shows it: a rule for each of the node's devices on such a
//! network. The table belongs to the node, as the bridge does: it stays when the last pod goes, for its
//! machines are still there.

use cni_conf::network::Network;
use kernel::nft::{Change, Ct, Expr, Hook, HookPoint, Table, TableFamily, Verdict};

use super::nat::hooks::{BEFORE_FILTER, DNATED, KNOWN};
use super::nat::matches::{came_by, connection, leaves_elsewhere};

/// Our table.
pub const TABLE: Table = Table { family: TableFamily::Inet, name: "vlan-bridge-uplinks" };

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
    let add = |exprs: Vec<Expr>, comment: &str| Change::AddRule {
        table: TABLE,
        chain: FORWARD.into(),
        exprs,
        comment: comment.to_owned(),
    };
    changes.extend(passes().map(|(comment, exprs)| add(exprs, comment)));
    changes.extend(devices.into_iter().map(|device| add(rule(device), device)));
    changes
}

/// What belongs to a known connection passes, and so does what was sent elsewhere than it was meant for (a
/// service, a host port). These rules come first: a packet that belongs to no connection at all, as one that
/// connection tracking finds invalid, has no `ct status`, and would end a drop rule that asks for it.
fn passes() -> [(&'static str, Vec<Expr>); 2] {
    let accept = |of: Vec<Expr>| [of, vec![Expr::Verdict(Verdict::Accept)]].concat();
    [
        ("known connections", accept(connection(Ct::State, KNOWN))),
        ("services and host ports", accept(connection(Ct::Status, DNATED))),
    ]
}

/// All else is dropped. What goes out by the device that it came by is bridged, with br_netfilter, or goes to
/// where it came from.
fn rule(device: &str) -> Vec<Expr> {
    [came_by(device), leaves_elsewhere(device), vec![Expr::Verdict(Verdict::Drop)]].concat()
}

/// Whether the chain begins with what passes, and has just the rules of these devices besides, by their
/// comments.
pub fn is_whole(there: &[String], devices: &[String]) -> bool {
    let passes = passes().map(|(comment, _)| comment);
    let begins = there.iter().map(String::as_str).take(passes.len()).eq(passes);
    begins
        && there.len() == passes.len() + devices.len()
        && devices.iter().all(|device| there.contains(device))
}
