//! NAT mode: installs and removes an attachment's elements in the node's packet filter. `plan::nat` defines
//! the elements.
//!
//! The kernel resolves conflicts. Elements are created, not added, so it refuses a host port that is
//! already taken. It does not delete a chain that is still referenced. An attachment's record is written
//! before its elements and removed after them (docs/architecture.md lists the order of steps, and what
//! remains after a kill).

mod bridged;
mod bridges;
mod flush;
mod follow;
mod forward;
mod install;
mod repair;
mod services;
mod share;

pub use bridged::{BridgedDrop, bridged_difference};
pub use forward::{is_accepted_by_our_rule, tables_accepting_everything};

use std::collections::BTreeSet;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use kernel::Conn;
use kernel::nft::{Change, Element, Table};
use kernel::nft::{Nft, RefusedChange};
use kernel::sysctl::InterfaceSysctls;

use crate::lock::RecordLock;
use crate::plan::nat::ruleset::{self, TABLE};
use crate::plan::nat::{self as plan, SUBNET_CHAINS, localhost};
use crate::record::{NatRecord, Records};
use crate::repairs::Repairs;

/// The node's packet filter and the records of the attachments in it.
#[derive(Debug)]
pub struct Nat {
    nft: Nft,
    records: Records<NatRecord>,
}

impl Nat {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Nat, CniError> {
        Ok(Nat { nft: Nft::open()?, records: Records::of_this_node()? })
    }

    /// Opens NAT for an attachment to this network, if it needs it: the network has NAT, or the packet
    /// filter drops what the network's bridge forwards, or what the node forwards as the network's gateway.
    pub fn needed_by(network: &Network) -> Result<Option<Nat>, CniError> {
        let tables = forward::tables_in_path(network);
        let nat = Nat::open_if_needed(network, &tables)?;
        if nat.is_none() {
            forward::warn_of_legacy_without_nat(network, &tables);
        }
        Ok(nat)
    }

    /// The same for STATUS, which is called every few seconds. Does not warn.
    pub fn probe_needed_by(network: &Network) -> Result<Option<Nat>, CniError> {
        Nat::open_if_needed(network, &forward::tables_in_path(network))
    }

    fn open_if_needed(network: &Network, tables: &[Table]) -> Result<Option<Nat>, CniError> {
        if network.has_nat() {
            return Nat::open().map(Some);
        }
        let nat =
            forward::open_if_dropping(tables).map(|nft| Ok(Nat { nft, records: Records::of_this_node()? }));
        nat.transpose()
    }

    /// Makes the base rule set if it is missing or damaged. If the kernel lacks a module, this fails, names
    /// the module and changes nothing. `veth` belongs to the attachment that is about to be added.
    pub async fn prepare(&self, node: &Conn, veth: &str) -> Result<(), CniError> {
        if !self.is_whole()? {
            self.rebuild(node, Some(veth), None).await?;
        }
        self.restore_shared(node).await
    }

    /// Whether [`Nat::prepare`] would succeed. Changes nothing.
    pub fn probe(&self) -> Result<(), CniError> {
        if self.nft.has_table(TABLE)? { Ok(()) } else { Ok(self.nft.check(&ruleset::base_ruleset())?) }
    }

    /// Removes an attachment's elements and its record. Missing elements are no error. Without a record,
    /// elements are found by their comments.
    pub async fn remove(&self, node: &Conn, veth: &str) -> Result<(), CniError> {
        let mut lock = RecordLock::shared()?;
        let mut record = self.records.read(veth);
        if record.as_ref().is_some_and(|record| !record.followers.is_empty()) {
            drop(lock);
            lock = RecordLock::exclusive()?;
            record = self.records.read(veth);
        }
        match &record {
            Some(record) => self.remove_elements(node, record).await?,
            None => self.remove_by_comment(|comment| plan::veth_of(comment) == Some(veth))?,
        }
        self.records.remove(veth)?;
        drop(lock);
        if let Some(record) = &record {
            self.delete_udp_conntrack_of_pod(record);
        }
        if let Err(e) = self.restore(node, record.as_deref()).await {
            log::error!("could not restore the NAT rules of other pods: {e}");
        }
        self.remove_table_if_unused(node, Some(veth), record.as_deref()).await
    }

    /// Removes the elements that belong to this attachment. Elements of other attachments stay: the record
    /// of an ADD whose port was refused, or that was killed before it knew, names such elements too.
    /// Attachments of the same container on other networks get the host ports in the same transaction, so
    /// that no other container gets them in between.
    async fn remove_elements(&self, node: &Conn, record: &NatRecord) -> Result<(), CniError> {
        let own = plan::element_comment(&record.pod.attachment());
        let mut going = Vec::new();
        for element in plan::elements(record) {
            let there = self.nft.element(TABLE, element.set, &element.key)?;
            going.extend(there.filter(|there| there.comment == own).map(|_| element));
        }
        let mut changes: Vec<Change> = going.iter().map(delete).collect();
        changes.extend(self.transfer_ports(node, record, &going).await?);
        self.commit_tolerating(changes, |refusal| refusal.not_found() || refusal.exists())?;
        self.delete_unused(plan::chains(record).iter().map(|chain| (chain.name.as_str(), chain.rules())))
    }

    /// Removes what belongs to attachments of this network that are not `wanted`. `wanted` has the names of
    /// their veths.
    pub async fn collect(&self, node: &Conn, network: &str, wanted: &[String]) -> Result<(), CniError> {
        let stale = |veth: &str| !wanted.iter().any(|name| name == veth);
        for (veth, record) in self.records.all() {
            if record.pod.network == network && stale(&veth) {
                self.remove(node, &veth).await?;
            }
        }
        let lock = RecordLock::exclusive()?;
        self.records.remove_drafts()?;
        self.remove_by_comment(|comment| {
            plan::is_of_network(comment, network) && plan::veth_of(comment).is_some_and(stale)
        })?;
        drop(lock);
        self.remove_table_if_unused(node, None, None).await
    }

    /// Removes the elements whose comments match, and chains that are no longer referenced.
    fn remove_by_comment(&self, matches: impl Fn(&str) -> bool) -> Result<(), CniError> {
        let mut deletions = Vec::new();
        for set in ruleset::MAPS {
            let elements = self.nft.elements(TABLE, set)?.into_iter();
            deletions.extend(
                elements
                    .filter(|element| matches(&element.comment))
                    .map(|element| delete_key(set, element.key)),
            );
        }
        if deletions.is_empty() {
            return Ok(());
        }
        self.commit_tolerating(deletions, RefusedChange::not_found)?;
        self.delete_unused(self.nft.chains(TABLE)?.iter().filter_map(|name| {
            let (_, rules) = SUBNET_CHAINS.iter().find(|(prefix, _)| name.starts_with(prefix))?;
            Some((name.as_str(), *rules))
        }))
    }

    /// Deletes those of the chains that are no longer referenced: their use count is no more than their
    /// rules. If another pod was added meanwhile, the kernel refuses to delete its chain.
    fn delete_unused<'a>(&self, chains: impl Iterator<Item = (&'a str, u32)>) -> Result<(), CniError> {
        let mut deletions = Vec::new();
        for (name, rules) in chains {
            if self.nft.chain(TABLE, name)?.is_some_and(|chain| chain.uses <= rules) {
                deletions.push(Change::DeleteChain { table: TABLE, name: name.to_owned() });
            }
        }
        let in_use = |refusal: &RefusedChange| refusal.not_found() || refusal.exists();
        self.commit_tolerating(deletions, in_use).map(drop)
    }

    /// Commits changes and skips those that the kernel refuses for a reason that does not matter. Returns
    /// false if any were skipped.
    fn commit_tolerating(
        &self,
        changes: Vec<Change>,
        does_not_matter: impl Fn(&RefusedChange) -> bool,
    ) -> Result<bool, CniError> {
        Ok(self.nft.commit_tolerating(changes, does_not_matter)?)
    }

    /// Removes the table if no attachment has a record any more. Rules in other tables that refer to it are
    /// removed first. If they accept packets of bridged pods that have no record, both stay while such a
    /// pod exists. The folder of records must_stay too, because it shows that there is something to remove.
    /// `gone` is the veth of a pod that is being removed.
    pub async fn remove_table_if_unused(
        &self,
        node: &Conn,
        gone: Option<&str>,
        last: Option<&NatRecord>,
    ) -> Result<(), CniError> {
        if !self.records.is_empty() {
            return Ok(());
        }
        let _lock = RecordLock::exclusive()?;
        let rules = self.forward_deletions()?;
        let must_stay = !rules.is_empty() && self.is_needed_by_bridged(node, gone).await?;
        if !(if must_stay { self.records.is_empty() } else { self.records.end() }) {
            return Ok(());
        }
        self.disable_old_route_localnet(last)?;
        let changes = if must_stay {
            let mut deletions = Vec::new();
            for set in [ruleset::DEVICES, ruleset::UPLINKS] {
                let routed = self.nft.elements(TABLE, set)?.into_iter();
                deletions.extend(routed.map(|there| delete_key(set, there.key)));
            }
            deletions
        } else {
            let table = self.nft.has_table(TABLE)?.then_some(Change::DeleteTable(TABLE));
            rules.into_iter().chain(table).collect()
        };
        self.commit_tolerating(changes, RefusedChange::not_found).map(drop)
    }

    /// Older versions enabled `route_localnet` and listed the devices in a set. It is disabled again for
    /// these devices, and after a flush of the set for devices whose records were written by an older
    /// version. `gone` is the record of an attachment that was just removed.
    fn disable_old_route_localnet(&self, gone: Option<&NatRecord>) -> Result<(), CniError> {
        let listed = self.nft.elements(TABLE, localhost::FORMER)?.into_iter();
        let mut devices: BTreeSet<String> = listed
            .filter(|there| there.comment.is_empty())
            .map(|there| kernel::nft::interface_name(&there.key))
            .collect();
        let all = self.records.all();
        let records = all.iter().map(|(_, record)| &**record).chain(gone);
        let of_old_versions = records
            .filter(|record| record.localhost.is_none() && plan::target_of_localhost(record).is_some());
        devices.extend(of_old_versions.map(|record| record.pod.device.clone()));
        for device in devices {
            InterfaceSysctls::ipv4().write(&device, "route_localnet", "0")?;
        }
        Ok(())
    }
}

/// Removes the NAT rules of an attachment, whose veth may be gone. They are found by its record, or, if its
/// configuration `may_have` some, by the comments of the elements. Returns the socket, which is slow to
/// close.
pub async fn detach(node: &Conn, veth: &str, may_have: bool) -> Result<Option<Nft>, CniError> {
    let records = Records::<NatRecord>::of_this_node()?;
    if !may_have && !records.has(veth) {
        return Ok(None);
    }
    let known = records.has(veth);
    let removed = async {
        let nat = Nat { nft: Nft::open()?, records };
        nat.remove(node, veth).await?;
        Ok(Some(nat.nft))
    };
    match removed.await {
        // For example a kernel without nf_tables: ADD was refused, so there are no rules.
        Err(e) if !known => {
            let e: CniError = e;
            log::warn!("could not look for rules of {veth}: {e}");
            Ok(None)
        }
        other => other,
    }
}

/// Restores NAT rules that a firewall restart removed. For calls whose own attachment has none; other calls
/// do it themselves. Errors are logged and do not fail the call. Also removes rules that stayed only for
/// bridged pods, after the last of these pods. `gone` is the veth of a pod that is being removed.
pub async fn repair_and_log(node: &Conn, gone: Option<&str>) {
    let repaired = async {
        let records = Records::<NatRecord>::of_this_node()?;
        if records.are_absent() {
            return Ok(());
        }
        let nat = Nat { nft: Nft::open()?, records };
        if nat.records.is_empty() {
            return nat.remove_table_if_unused(node, gone, None).await;
        }
        nat.restore(node, None).await
    };
    let repaired: Result<(), CniError> = repaired.await;
    if let Err(e) = repaired {
        log::error!("could not restore the NAT rules of other pods: {e}");
    }
}

/// Restores everything that a CHECK of any attachment would report.
pub async fn repair(node: &Conn, repairs: &mut Repairs<'_>) -> Result<(), CniError> {
    let nat = Nat::open()?;
    if !nat.records.are_absent() {
        nat.repair(node, repairs).await?;
    } else if nat.nft.has_table(TABLE).is_err() {
        // A kernel without nf_tables has no such rules.
        return Ok(());
    }
    nat.repair_bridged(node, repairs).await
}

/// Removes rules that stayed only for bridged pods, after the last of these pods. If two pods go at once,
/// each DEL may have seen the other pod.
pub async fn remove_unused_table_and_log(node: &Conn) {
    let ended = async {
        let records = Records::<NatRecord>::of_this_node()?;
        if records.are_absent() || !records.is_empty() {
            return Ok(());
        }
        Nat { nft: Nft::open()?, records }.remove_table_if_unused(node, None, None).await
    };
    let ended: Result<(), CniError> = ended.await;
    if let Err(e) = ended {
        log::error!("could not remove the unused NAT table: {e}");
    }
}

/// Removes our table and our rules in iptables' tables, if no attachment has a record.
pub async fn remove_leftovers(node: &Conn) -> Result<(), CniError> {
    let Ok(nft) = Nft::open() else { return Ok(()) };
    // A kernel without nf_tables has neither.
    if nft.has_table(TABLE).is_err() {
        return Ok(());
    }
    Nat { nft, records: Records::of_this_node()? }.remove_table_if_unused(node, None, None).await
}

/// Removes the NAT rules of every attachment of a network except those whose veths are `wanted`.
pub async fn collect(node: &Conn, network: &str, wanted: &[String], may_have: bool) -> Result<(), CniError> {
    let known = !Records::<NatRecord>::of_this_node()?.are_absent();
    if !may_have && !known {
        return Ok(());
    }
    let collected = async { Nat::open()?.collect(node, network, wanted).await };
    match collected.await {
        Err(e) if !known => {
            log::warn!("could not look for rules of network {network}: {e}");
            Ok(())
        }
        other => other,
    }
}

/// For CHECK: describes what is missing or changed in an attachment's NAT rules. `expected`: its
/// configuration requires some.
pub fn difference(veth: &str, expected: bool) -> Result<Option<String>, CniError> {
    let records = Records::<NatRecord>::of_this_node()?;
    if expected || records.has(veth) { Nat::open()?.difference(veth, expected) } else { Ok(None) }
}

fn delete(element: &Element) -> Change {
    delete_key(element.set, element.key.clone())
}

fn delete_key(set: &'static str, key: Vec<u8>) -> Change {
    Change::DeleteElement { table: TABLE, set, key }
}
