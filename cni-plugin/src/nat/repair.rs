//! Detects missing rules, for example after `nft flush ruleset`, and restores them from the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cni_conf::cni::error::CniError;
use cni_conf::family::Family;
use kernel::nft::{Change, Element, RefusedChange};
use kernel::{Conn, sysctl};

use super::Nat;
use super::forward::device_changes;
use super::install::{create, localhost};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::{self, TABLE};
use crate::record::NatRecord;
use crate::repairs::{Repairs, Subject};

impl Nat {
    /// Makes the base rule set if it is damaged, with the elements of all live attachments except `but`, in
    /// one transaction. The caller is about to add `but`. If there are no attachments, nothing is made.
    /// `gone` is the record of an attachment that was just removed.
    pub(super) async fn rebuild(
        &self,
        node: &Conn,
        but: Option<&str>,
        gone: Option<&NatRecord>,
    ) -> Result<(), CniError> {
        let live = self.restore_elements(node, but, gone, false).await?;
        self.finish(node, &live).await
    }

    /// The same even if the base rule set is whole: elements of some pod are missing.
    async fn rebuild_all(&self, node: &Conn) -> Result<(), CniError> {
        let live = self.restore_elements(node, None, None, true).await?;
        self.finish(node, &live).await
    }

    async fn finish(&self, node: &Conn, live: &[NatRecord]) -> Result<(), CniError> {
        if !live.is_empty() {
            log::warn!(
                "restored the rules of {} pods, which were missing from the packet filter",
                live.len()
            );
        }
        for record in live {
            self.exclude_service_addresses(node, record).await?;
            self.ensure_forward_rules(node, record).await?;
            self.delete_udp_conntrack_of_node(node, record).await;
        }
        Ok(())
    }

    /// Restores the base rule set and the shared rules. For callers that add no attachment.
    pub(super) async fn restore(&self, node: &Conn, gone: Option<&NatRecord>) -> Result<(), CniError> {
        if !self.is_whole()? {
            self.rebuild(node, None, gone).await?;
        }
        self.restore_shared(node).await
    }

    /// Restores everything that a CHECK of any attachment would report.
    pub(super) async fn repair(&self, node: &Conn, repairs: &mut Repairs<'_>) -> Result<(), CniError> {
        let all = self.records.all();
        for family in Family::BOTH {
            let needs = |record: &NatRecord| {
                plan::is_routed(record)
                    && record.pod.addresses.iter().any(|net| Family::of_net(net) == family)
            };
            if all.iter().any(|(_, record)| needs(record)) && !sysctl::forwards(family)? {
                let what = vec![format!("forwarding of {family} was off")];
                if repairs.permits(&Subject::Nat, &what) {
                    sysctl::enable_forwarding(node, family).await?;
                    repairs.restored(&Subject::Nat, what);
                }
            }
        }
        self.follow_sources(&all, repairs)?;
        // Without the table, there is nothing to compare with. It comes back below.
        let published = all.iter().filter(|(_, record)| !record.ports.is_empty());
        for (veth, record) in if self.is_whole()? { published.collect() } else { Vec::new() } {
            let changes = self.service_changes(node, record).await?;
            let what = vec![format!("{veth}: the addresses of services had changed")];
            if !changes.is_empty() && repairs.permits(&Subject::Nat, &what) {
                self.commit_tolerating(changes, RefusedChange::not_found)?;
                repairs.restored(&Subject::Nat, what);
            }
        }
        let lost = self.lost()?;
        if lost.is_empty() || !repairs.permits(&Subject::Nat, &lost) {
            return Ok(());
        }
        self.restore(node, None).await?;
        if !self.lost()?.is_empty() {
            self.rebuild_all(node).await?;
        }
        repairs.restored(&Subject::Nat, lost);
        Ok(())
    }

    /// Describes what live attachments lack.
    fn lost(&self) -> Result<Vec<String>, CniError> {
        let all = self.records.all();
        if let Some(chain) = self.broken_chain()? {
            return Ok(all.iter().map(|(veth, _)| format!("{veth}: {}", without_chain(&chain))).collect());
        }
        let listed = self.listed(&all)?;
        let is_dropped = self.is_any_dropped()?;
        let mut lost = Vec::new();
        for (veth, record) in all {
            // An ADD may have written the record after the lists were made.
            if is_dropped || !has_all(&listed, &record) {
                lost.extend(self.difference_of(&record)?.map(|what| format!("{veth}: {what}")));
            }
        }
        Ok(lost)
    }

    /// The sets that have elements of these attachments: one list of each set is cheaper than a look for each
    /// element.
    fn listed(&self, records: &[(String, Arc<NatRecord>)]) -> Result<Listed, CniError> {
        let mut listed = Listed::new();
        for set in records.iter().flat_map(|(_, record)| sets_of(record)).collect::<BTreeSet<_>>() {
            let elements = self.nft.elements(TABLE, set)?.into_iter();
            listed.insert(set, elements.map(|element| (element.key, element.comment)).collect());
        }
        Ok(listed)
    }

    /// Returns the records whose elements were restored. Empty if the base rule set was whole.
    async fn restore_elements(
        &self,
        node: &Conn,
        but: Option<&str>,
        gone: Option<&NatRecord>,
        even_if_whole: bool,
    ) -> Result<Vec<NatRecord>, CniError> {
        let _lock = RecordLock::exclusive()?;
        if !even_if_whole && self.broken_chain()?.is_none() {
            return Ok(Vec::new());
        }
        self.disable_old_route_localnet(gone)?;
        let mut live = self.records.live(node, but).await?;
        if live.is_empty() && but.is_none() {
            return Ok(live);
        }
        for record in &mut live {
            // Written by an older version.
            if record.localhost.is_none() && plan::target_of_localhost(record).is_some() {
                record.localhost = localhost(node, record).await?;
                self.records.write(record)?;
            }
        }
        let mut changes = Vec::new();
        changes.extend(self.nft.has_table(TABLE)?.then_some(Change::DeleteTable(TABLE)));
        changes.extend(ruleset::base_ruleset());
        let mut made = BTreeSet::new();
        for chain in live.iter().flat_map(plan::chains) {
            if made.insert(chain.name.clone()) {
                changes.extend(chain.make());
            }
        }
        changes.extend(self.share(&mut live)?.into_iter().map(create));
        changes.extend(device_changes(&live));
        // An ADD in progress may want an element of a finished attachment. The kernel will refuse it there.
        self.commit_tolerating(changes, RefusedChange::exists)?;
        Ok(live)
    }

    /// Whether the table exists with all of its chains and rules. A firewall restart may have removed some
    /// of them.
    pub(super) fn is_whole(&self) -> Result<bool, CniError> {
        Ok(self.nft.has_table(TABLE)? && self.broken_chain()?.is_none())
    }

    /// A chain of the base rule set that is missing or changed.
    fn broken_chain(&self) -> Result<Option<String>, CniError> {
        ruleset::broken_chain(|name| Ok(self.nft.chain(TABLE, name)?.map(|chain| chain.uses)))
    }

    /// Describes what is missing or changed in an attachment's rules. `expected`: its configuration
    /// requires some.
    pub(super) fn difference(&self, veth: &str, expected: bool) -> Result<Option<String>, CniError> {
        let Some(record) = self.records.read(veth) else {
            return Ok(expected.then(|| format!("the record of {veth} is gone")));
        };
        match self.broken_chain()? {
            Some(chain) => Ok(Some(without_chain(&chain))),
            None => self.difference_of(&record),
        }
    }

    /// The same where all chains of the base rule set are whole.
    fn difference_of(&self, record: &NatRecord) -> Result<Option<String>, CniError> {
        let own = plan::element_comment(&record.pod.attachment());
        for element in plan::elements(record) {
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == own => {}
                // A sibling, the same container on another network, holds the port.
                Some(there) if self.sibling(record, &element, &there.comment).is_some() => {}
                _ => return Ok(Some(format!("{} is gone from table {TABLE}", plan::what(&element)))),
            }
        }
        if let Some(set) = self.lost_device(record)? {
            return Ok(Some(format!("{} is gone from set {set} of table {TABLE}", record.pod.device)));
        }
        self.forward_difference(record)
    }
}

/// The elements of sets, each with its comment.
type Listed = BTreeMap<&'static str, BTreeMap<Vec<u8>, String>>;

fn sets_of(record: &NatRecord) -> impl Iterator<Item = &'static str> {
    plan::elements(record).into_iter().chain(plan::device_elements(record)).map(|element| element.set)
}

/// Whether all elements of an attachment are there, and none is of a sibling.
fn has_all(listed: &Listed, record: &NatRecord) -> bool {
    let own = plan::element_comment(&record.pod.attachment());
    let comment = |element: &Element| listed.get(element.set)?.get(&element.key);
    plan::elements(record).iter().all(|element| comment(element) == Some(&own))
        && plan::device_elements(record).iter().all(|element| comment(element).is_some())
}

fn without_chain(chain: &str) -> String {
    format!("chain {chain} of table {TABLE} is gone or changed")
}
