//! Keeps the node from routing between the network of an uplink and its other networks, which would bypass
//! the firewall between their VLANs.
//!
//! `nft list table inet vlan-bridge-uplinks` shows it: a rule for each of the node's devices on such a
//! network. The table belongs to the node, as the bridge does. It stays after the last pod, because the
//! other hosts on the network are still there.

use cni_conf::network::Network;
use kernel::nft::{Change, Ct, Expr, Hook, HookPoint, Table, TableFamily, Verdict};

use super::nat::hooks::{BEFORE_FILTER, DNATED, KNOWN};
use super::nat::matches::{came_by, connection, leaves_elsewhere};

/// Our table.
pub const TABLE: Table = Table { family: TableFamily::Inet, name: "vlan-bridge-uplinks" };

/// Its only chain.
pub const FORWARD: &str = "forward";

/// The devices on which packets arrive from a network for which the node forwards nothing. With
/// br_netfilter they arrive on the bridge itself, also on a trunk.
pub fn devices(network: &Network) -> Vec<String> {
    if network.uplink.is_none() {
        return Vec::new();
    }
    let side = network.node_side().map(|(name, _)| name);
    std::iter::once(network.bridge.clone()).chain(side).collect()
}

/// Makes the table, or replaces its rules if it exists, with a rule for each of these devices. The rules'
/// comments name the devices.
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

/// Accepts packets of known connections and packets whose destination was changed (services and host
/// ports). These rules come first. A packet without a connection, for example one that connection tracking
/// finds invalid, has no `ct status`, so a drop rule that matches the status would not apply to it.
fn passes() -> [(&'static str, Vec<Expr>); 2] {
    let accept = |of: Vec<Expr>| [of, vec![Expr::Verdict(Verdict::Accept)]].concat();
    [
        ("known connections", accept(connection(Ct::State, KNOWN))),
        ("services and host ports", accept(connection(Ct::Status, DNATED))),
    ]
}

/// Drops everything else. A packet that leaves by the device on which it arrived passes: it is bridged
/// (br_netfilter) or returns to its network.
fn rule(device: &str) -> Vec<Expr> {
    [came_by(device), leaves_elsewhere(device), vec![Expr::Verdict(Verdict::Drop)]].concat()
}

/// Whether the chain begins with the accept rules, followed by exactly the rules of these devices, by
/// comment.
pub fn is_whole(comments: &[String], devices: &[String]) -> bool {
    let passes = passes().map(|(comment, _)| comment);
    let begins = comments.iter().map(String::as_str).take(passes.len()).eq(passes);
    begins
        && comments.len() == passes.len() + devices.len()
        && devices.iter().all(|device| comments.contains(device))
}
