//! After `nft flush ruleset`: notices, and puts everything back from the records.

use std::collections::BTreeSet;

use cni_conf::cni::error::CniError;
use cni_conf::family::Family;
use kernel::nft::Change;
use kernel::nft::Refusal;
use kernel::{Conn, sysctl};

use super::Nat;
use super::forward::shared;
use super::install::{create, localhost};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::{self, TABLE};
use crate::record::Record;

impl Nat {
    /// Makes the frame, if it is not as it should be, with the elements of all live attachments, in one
    /// transaction. `but` one, which the caller is about to put in. Where there is nobody to make it for, it
    /// is not made. `gone` is who has just been taken out.
    pub(super) async fn rebuild(
        &self,
        node: &Conn,
        but: Option<&str>,
        gone: Option<&Record>,
    ) -> Result<(), CniError> {
        let live = self.restore_elements(node, but, gone, false).await?;
        self.finish(node, &live).await
    }

    /// The same whether the frame is whole or not: elements of some pod are gone.
    async fn rebuild_all(&self, node: &Conn) -> Result<(), CniError> {
        let live = self.restore_elements(node, None, None, true).await?;
        self.finish(node, &live).await
    }

    async fn finish(&self, node: &Conn, live: &[Record]) -> Result<(), CniError> {
        if !live.is_empty() {
            log::warn!("the rules of {} pods were gone from the packet filter and are back", live.len());
        }
        for record in live {
            self.leave_services_out(node, record).await?;
            self.let_forward(node, record).await?;
            self.delete_udp_conntrack_of_node(node, record).await;
        }
        Ok(())
    }

    /// The same for who puts nothing in, and so sees the rest of it too.
    pub(super) async fn restore(&self, node: &Conn, gone: Option<&Record>) -> Result<(), CniError> {
        if !self.is_whole()? {
            self.rebuild(node, None, gone).await?;
        }
        self.restore_shared(node).await
    }

    /// Puts back all that CHECK of any attachment would complain of, and returns it in words.
    pub(super) async fn repair(&self, node: &Conn) -> Result<Vec<String>, CniError> {
        let mut repaired = Vec::new();
        for family in Family::BOTH {
            let needs = |record: &Record| {
                plan::is_routed(record) && record.addresses.iter().any(|net| Family::of_net(net) == family)
            };
            if self.records.all().iter().any(|(_, record)| needs(record)) && !sysctl::forwards(family)? {
                sysctl::enable_forwarding(node, family).await?;
                repaired.push(format!("forwarding of {family} was off"));
            }
        }
        for (_, record) in self.records.all() {
            self.leave_services_out(node, &record).await?;
        }
        let lost = self.lost()?;
        if lost.is_empty() {
            return Ok(repaired);
        }
        self.restore(node, None).await?;
        if !self.lost()?.is_empty() {
            self.rebuild_all(node).await?;
        }
        repaired.extend(lost);
        Ok(repaired)
    }

    /// What attachments whose veth is there have lost.
    fn lost(&self) -> Result<Vec<String>, CniError> {
        let mut lost = Vec::new();
        for (veth, _) in self.records.all() {
            lost.extend(self.difference(&veth, true)?.map(|what| format!("{veth}: {what}")));
        }
        Ok(lost)
    }

    /// Returns whose elements are back; nobody's if the frame was whole.
    async fn restore_elements(
        &self,
        node: &Conn,
        but: Option<&str>,
        gone: Option<&Record>,
        in_any_case: bool,
    ) -> Result<Vec<Record>, CniError> {
        let _lock = RecordLock::exclusive()?;
        if !in_any_case && self.broken_chain()?.is_none() {
            return Ok(Vec::new());
        }
        self.end_route_localnet(gone)?;
        let mut live = self.records.live(node, but).await?;
        if live.is_empty() && but.is_none() {
            return Ok(live);
        }
        for record in &mut live {
            // Of an older version.
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
        changes.extend(shared(&live));
        // An attachment under way may want what a finished one has; it will be refused by itself.
        self.commit_tolerating(changes, Refusal::exists)?;
        Ok(live)
    }

    /// Whether the table is there with all of its chains and rules. A firewall's restart may have taken some
    /// of them alone.
    pub(super) fn is_whole(&self) -> Result<bool, CniError> {
        Ok(self.nft.has_table(TABLE)? && self.broken_chain()?.is_none())
    }

    /// A chain of the frame that is not as it was made.
    fn broken_chain(&self) -> Result<Option<String>, CniError> {
        for (name, uses) in ruleset::uses() {
            if self.nft.chain(TABLE, &name)?.is_none_or(|chain| chain.uses < uses) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// What of an attachment is no longer as it was put in, in words. `expected`: by its configuration it has
    /// something.
    pub(super) fn difference(&self, veth: &str, expected: bool) -> Result<Option<String>, CniError> {
        let Some(record) = self.records.read(veth) else {
            return Ok(expected.then(|| format!("the record of {veth} is gone")));
        };
        if let Some(chain) = self.broken_chain()? {
            return Ok(Some(format!("chain {chain} of table {TABLE} is gone or changed")));
        }
        let own = plan::element_comment(&record.attachment());
        for element in plan::elements(&record) {
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == own => {}
                // It is the same container's by another network, for as long as that has it.
                Some(there) if self.sibling(&record, &element, &there.comment).is_some() => {}
                _ => return Ok(Some(format!("{} is gone from table {TABLE}", plan::what(&element)))),
            }
        }
        if let Some(set) = self.lost_device(&record)? {
            return Ok(Some(format!("{} is gone from set {set} of table {TABLE}", record.device)));
        }
        self.forward_difference(&record)
    }
}
