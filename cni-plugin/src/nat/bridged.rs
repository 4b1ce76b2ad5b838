//! Pods that are only bridged, and have no record of NAT. With br_netfilter the node's FORWARD policy drops
//! what they send, too.

use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use kernel::Conn;
use kernel::nft::Nft;
use kernel::nft::{Change, Table};

use super::Nat;
use super::bridges::{bridges_of_pods, tables_called};
use super::forward::{concerns, drops, is_met, opened};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::{self, IPTABLES_FORWARD, TABLE};

impl Nat {
    /// Lets pods pass that came before a policy of drop, and takes away a rule of ours that accepts
    /// everything, on a node without any record too. Returns in words what was wrong.
    pub(super) async fn repair_bridged(&self, node: &Conn) -> Result<Vec<String>, CniError> {
        let mut wrong: Vec<String> = opened()?
            .into_iter()
            .map(|table| {
                format!("a rule of ours in chain {IPTABLES_FORWARD} of table {table} accepted everything")
            })
            .collect();
        let mut are_dropped = false;
        for bridge in bridges_of_pods(node, None).await? {
            if let Some(BridgedDrop { what, is_doubtful: false }) = bridged_difference(&bridge, &[])? {
                are_dropped = true;
                wrong.push(what);
            }
        }
        if are_dropped {
            // By the folder it is known that there is something to end with the last pod.
            self.records.begin()?;
            let mut anew = Vec::new();
            if !self.is_whole()? {
                anew.extend(self.nft.has_table(TABLE)?.then_some(Change::DeleteTable(TABLE)));
                anew.extend(ruleset::base_ruleset());
            }
            self.put_forward(node, anew).await?;
        } else if !wrong.is_empty() {
            let _lock = RecordLock::exclusive()?;
            self.nft.commit(&self.forward_deletions()?)?;
        }
        Ok(wrong)
    }

    /// Whether our rules in others' tables have to outlive the last record: bridged pods that came before the
    /// policy have none. `gone` is a veth that does not count any more.
    pub(super) async fn is_needed_by_bridged(
        &self,
        node: &Conn,
        gone: Option<&str>,
    ) -> Result<bool, CniError> {
        for table in tables_called() {
            if drops(&self.nft, table)? {
                return Ok(!bridges_of_pods(node, gone).await?.is_empty());
            }
        }
        Ok(false)
    }
}

/// A policy that drops what a bridge forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgedDrop {
    /// In words.
    pub what: String,
    /// Somebody else's rules are about the bridge, or about what is bridged (`-m physdev`): they may let it
    /// pass.
    pub is_doubtful: bool,
}

/// Whether the packet filter drops what a bridge forwards for a pod with these addresses, and nothing of ours
/// meets it: as of a pod that was attached before the policy was set. A pod whose addresses are not known may
/// have any.
pub fn bridged_difference(bridge: &str, addresses: &[IpAddr]) -> Result<Option<BridgedDrop>, CniError> {
    let called: Vec<Table> =
        tables_called().into_iter().filter(|table| concerns(*table, addresses)).collect();
    if called.is_empty() {
        return Ok(None);
    }
    let nft = Nft::open()?;
    let element = plan::bridged_element(bridge);
    let mut doubtful = None;
    for table in called {
        let passes = is_met(&nft, table)? && nft.element(TABLE, element.set, &element.key)?.is_some();
        if !drops(&nft, table)? || passes {
            continue;
        }
        let what = format!(
            "br_netfilter is on, and chain {IPTABLES_FORWARD} of table {table} drops what bridge {bridge} forwards"
        );
        if !(nft.mentions(table.family, table.name, bridge)?
            || nft.mentions(table.family, table.name, "physdev")?)
        {
            return Ok(Some(BridgedDrop { what, is_doubtful: false }));
        }
        doubtful = Some(BridgedDrop { what, is_doubtful: true });
    }
    Ok(doubtful)
}
