//! Pods that are only bridged, and have no record of NAT. With br_netfilter the node's FORWARD policy drops
//! what they send, too.

use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use kernel::Conn;
use kernel::nft::Nft;
use kernel::nft::{Change, Table};

use super::Nat;
use super::bridges::{bridges_of_pods, tables_seeing_bridged};
use super::forward::{applies_to, drops, has_accept_rule, tables_accepting_everything};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::{self, IPTABLES_FORWARD, TABLE};
use crate::repairs::{Repairs, Subject};

impl Nat {
    /// Installs accept rules for pods that were attached before a FORWARD policy of drop was set. Removes a
    /// rule of ours that accepts everything, even if the node has no records.
    pub(super) async fn repair_bridged(
        &self,
        node: &Conn,
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        let mut wrong: Vec<String> = tables_accepting_everything()?
            .into_iter()
            .map(|table| {
                format!("vlan-bridge's rule in chain {IPTABLES_FORWARD} of table {table} accepted everything")
            })
            .collect();
        let mut are_dropped = false;
        let bridges = if self.drops_bridged()? { bridges_of_pods(node, None).await? } else { Vec::new() };
        for bridge in bridges {
            if let Some(BridgedDrop { what, is_doubtful: false }) = bridged_difference(&bridge, &[])? {
                are_dropped = true;
                wrong.push(what);
            }
        }
        if wrong.is_empty() || !repairs.permits(&Subject::Nat, &wrong) {
            return Ok(());
        }
        if are_dropped {
            // The folder shows that there are rules to remove with the last pod.
            self.records.begin()?;
            let mut changes = Vec::new();
            if !self.is_whole()? {
                changes.extend(self.nft.has_table(TABLE)?.then_some(Change::DeleteTable(TABLE)));
                changes.extend(ruleset::base_ruleset());
            }
            self.install_forward_rules(node, changes).await?;
        } else {
            let _lock = RecordLock::exclusive()?;
            self.nft.commit(&self.forward_deletions()?)?;
        }
        repairs.restored(&Subject::Nat, wrong);
        Ok(())
    }

    /// Whether our rules in other tables are still needed after the last record: bridged pods that were
    /// attached before the policy have no record. `gone` is a veth that no longer counts.
    pub(super) async fn is_needed_by_bridged(
        &self,
        node: &Conn,
        gone: Option<&str>,
    ) -> Result<bool, CniError> {
        Ok(self.drops_bridged()? && !bridges_of_pods(node, gone).await?.is_empty())
    }

    /// Whether a table that sees what bridges forward drops it.
    fn drops_bridged(&self) -> Result<bool, CniError> {
        for table in tables_seeing_bridged() {
            if drops(&self.nft, table)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A policy that drops what a bridge forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgedDrop {
    /// A description.
    pub what: String,
    /// Rules of another program match the bridge or bridged packets (`-m physdev`). They may accept the
    /// packets.
    pub is_doubtful: bool,
}

/// Whether the packet filter drops what a bridge forwards for a pod with these addresses, and no rule of
/// ours accepts it. This happens if the pod was attached before the policy was set. No addresses means that
/// they are unknown: the pod may have any.
pub fn bridged_difference(bridge: &str, addresses: &[IpAddr]) -> Result<Option<BridgedDrop>, CniError> {
    let tables: Vec<Table> =
        tables_seeing_bridged().into_iter().filter(|table| applies_to(*table, addresses)).collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let nft = Nft::open()?;
    let element = plan::bridged_element(bridge);
    let mut doubtful = None;
    for table in tables {
        let passes =
            has_accept_rule(&nft, table)? && nft.element(TABLE, element.set, &element.key)?.is_some();
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
