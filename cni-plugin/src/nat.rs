//! NAT mode at work: puts an attachment's elements into the node's packet filter and takes them out.
//! `plan::nat` says what they are.
//!
//! The kernel is who decides: elements are created, not added, so that a port that somebody has is refused,
//! and a chain that something leads to cannot be deleted. Each attachment's record is written before its
//! elements and removed after them (docs/architecture.md has the order of steps, and what a kill leaves).

mod bridged;
mod bridges;
mod flush;
mod forward;
mod install;
mod repair;
mod services;
mod share;

pub use bridged::{BridgedDrop, bridged_difference};
pub use forward::{is_let_through, opened};

use std::collections::BTreeSet;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use kernel::Conn;
use kernel::nft::{Change, Element, Table};
use kernel::nft::{Nft, Refusal};
use kernel::sysctl::InterfaceSysctls;

use crate::lock::RecordLock;
use crate::plan::nat::ruleset::{self, TABLE};
use crate::plan::nat::{self as plan, SUBNET_CHAINS, localhost};
use crate::record::{Record, Records};

/// The node's packet filter and the records of what is in it.
#[derive(Debug)]
pub struct Nat {
    nft: Nft,
    records: Records,
}

impl Nat {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Nat, CniError> {
        Ok(Nat { nft: Nft::open()?, records: Records::of_this_node()? })
    }

    /// For an attachment to a network: if it has NAT, or has to be let through where the packet filter drops
    /// what its bridge forwards, or what the node forwards as its gateway.
    pub fn needed_by(network: &Network) -> Result<Option<Nat>, CniError> {
        let called = forward::called(network);
        let nat = Nat::needed_where(network, &called)?;
        if nat.is_none() {
            forward::warn_of_legacy_without_nat(network, &called);
        }
        Ok(nat)
    }

    /// The same for who only asks, and that every few seconds.
    pub fn probe_needed_by(network: &Network) -> Result<Option<Nat>, CniError> {
        Nat::needed_where(network, &forward::called(network))
    }

    fn needed_where(network: &Network, called: &[Table]) -> Result<Option<Nat>, CniError> {
        if network.has_nat() {
            return Nat::open().map(Some);
        }
        let nat =
            forward::where_dropped(called).map(|nft| Ok(Nat { nft, records: Records::of_this_node()? }));
        nat.transpose()
    }

    /// Makes the frame where it is not there or not whole: if the kernel lacks a part, this fails, naming the
    /// module, and changes nothing. `veth` is who is about to be put in.
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

    /// Takes an attachment's elements out and removes its record. What is not there is no error. Without a
    /// record they are looked for by their comments.
    pub async fn remove(&self, node: &Conn, veth: &str) -> Result<(), CniError> {
        let mut lock = RecordLock::shared()?;
        let mut record = self.records.read(veth);
        if record.as_ref().is_some_and(|record| !record.followers.is_empty()) {
            drop(lock);
            lock = RecordLock::exclusive()?;
            record = self.records.read(veth);
        }
        match &record {
            Some(record) => self.take_out(node, record).await?,
            None => self.sweep(|comment| plan::veth_of(comment) == Some(veth))?,
        }
        self.records.remove(veth)?;
        drop(lock);
        if let Some(record) = &record {
            self.delete_udp_conntrack_of_pod(record);
        }
        if let Err(e) = self.restore(node, record.as_ref()).await {
            log::error!("other pods' NAT: {e}");
        }
        self.remove_table_if_unused(node, Some(veth), record.as_ref()).await
    }

    /// An element that another attachment has stays: an ADD whose port was refused, or that was killed before
    /// it knew, has a record that names it all the same. What the same container has on other networks gets
    /// its host ports in the same transaction, so that nobody else does.
    async fn take_out(&self, node: &Conn, record: &Record) -> Result<(), CniError> {
        let own = plan::element_comment(&record.attachment());
        let mut going = Vec::new();
        for element in plan::elements(record) {
            let there = self.nft.element(TABLE, element.set, &element.key)?;
            going.extend(there.filter(|there| there.comment == own).map(|_| element));
        }
        let mut changes: Vec<Change> = going.iter().map(delete).collect();
        changes.extend(self.handing_over(node, record, &going).await?);
        self.commit_tolerating(changes, |refusal| refusal.not_found() || refusal.exists())?;
        self.delete_unused(plan::chains(record).iter().map(|chain| (chain.name.as_str(), chain.rules())))
    }

    /// Removes what belongs to no attachment that is wanted: of this network, by the names of their veths.
    pub async fn collect(&self, node: &Conn, network: &str, wanted: &[String]) -> Result<(), CniError> {
        let stale = |veth: &str| !wanted.iter().any(|name| name == veth);
        for (veth, record) in self.records.all() {
            if record.network == network && stale(&veth) {
                self.remove(node, &veth).await?;
            }
        }
        let lock = RecordLock::exclusive()?;
        self.records.remove_drafts()?;
        self.sweep(|comment| {
            plan::is_of_network(comment, network) && plan::veth_of(comment).is_some_and(stale)
        })?;
        drop(lock);
        self.remove_table_if_unused(node, None, None).await
    }

    /// Removes the elements whose comment is like that, and chains that nothing leads to any more.
    fn sweep(&self, is_meant: impl Fn(&str) -> bool) -> Result<(), CniError> {
        let mut deletions = Vec::new();
        for set in ruleset::MAPS {
            let elements = self.nft.elements(TABLE, set)?.into_iter();
            deletions.extend(
                elements
                    .filter(|element| is_meant(&element.comment))
                    .map(|element| delete_key(set, element.key)),
            );
        }
        if deletions.is_empty() {
            return Ok(());
        }
        self.commit_tolerating(deletions, Refusal::not_found)?;
        self.delete_unused(self.nft.chains(TABLE)?.iter().filter_map(|name| {
            let (_, rules) = SUBNET_CHAINS.iter().find(|(prefix, _)| name.starts_with(prefix))?;
            Some((name.as_str(), *rules))
        }))
    }

    /// Deletes those of the chains that nothing leads to: whose uses are no more than their rules. If another
    /// pod has come meanwhile, the kernel does not let go of its chain.
    fn delete_unused<'a>(&self, chains: impl Iterator<Item = (&'a str, u32)>) -> Result<(), CniError> {
        let mut deletions = Vec::new();
        for (name, rules) in chains {
            if self.nft.chain(TABLE, name)?.is_some_and(|chain| chain.uses <= rules) {
                deletions.push(Change::DeleteChain { table: TABLE, name: name.to_owned() });
            }
        }
        let in_use = |refusal: &Refusal| refusal.not_found() || refusal.exists();
        self.commit_tolerating(deletions, in_use).map(drop)
    }

    /// Commits changes without those that are refused for a reason that does not matter. False if there were
    /// any.
    fn commit_tolerating(
        &self,
        changes: Vec<Change>,
        does_not_matter: impl Fn(&Refusal) -> bool,
    ) -> Result<bool, CniError> {
        Ok(self.nft.commit_tolerating(changes, does_not_matter)?)
    }

    /// Takes the table away when the last attachment with a record has gone; what leads into it from
    /// elsewhere goes first. Where that lets pass bridged pods that have no record, both stay for as long as
    /// one of them is there, and so does the folder of records, by which it is known. `gone` is the veth of
    /// who is just going.
    pub async fn remove_table_if_unused(
        &self,
        node: &Conn,
        gone: Option<&str>,
        last: Option<&Record>,
    ) -> Result<(), CniError> {
        if !self.records.is_empty() {
            return Ok(());
        }
        let _lock = RecordLock::exclusive()?;
        let rules = self.forward_deletions()?;
        let stays = !rules.is_empty() && self.is_needed_by_bridged(node, gone).await?;
        if !(if stays { self.records.is_empty() } else { self.records.end() }) {
            return Ok(());
        }
        self.end_route_localnet(last)?;
        let changes = if stays {
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
        self.commit_tolerating(changes, Refusal::not_found).map(drop)
    }

    /// Versions before this one switched `route_localnet` on, and said where in a set. What is still so is
    /// switched off, also after a flush, of devices whose records are as theirs; `gone` is one that has just
    /// been removed.
    fn end_route_localnet(&self, gone: Option<&Record>) -> Result<(), CniError> {
        let said = self.nft.elements(TABLE, localhost::FORMER)?.into_iter();
        let mut devices: BTreeSet<String> = said
            .filter(|there| there.comment.is_empty())
            .map(|there| kernel::nft::interface_name(&there.key))
            .collect();
        let all = self.records.all();
        let records = all.iter().map(|(_, record)| record).chain(gone);
        let theirs = records
            .filter(|record| record.localhost.is_none() && plan::target_of_localhost(record).is_some());
        devices.extend(theirs.map(|record| record.device.clone()));
        for device in devices {
            InterfaceSysctls::ipv4().write(&device, "route_localnet", "0")?;
        }
        Ok(())
    }
}

/// Undoes NAT of an attachment whose veth may be gone, where it has any: by its record, or, if the
/// configuration `may_have` some, by the comments of the elements. Returns the socket that was needed, which
/// is slow to be closed.
pub async fn detach(node: &Conn, veth: &str, may_have: bool) -> Result<Option<Nft>, CniError> {
    let records = Records::of_this_node()?;
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
        // A kernel without nf_tables, for one: ADD was refused for it, and nothing can be there.
        Err(e) if !known => {
            let e: CniError = e;
            log::warn!("no rules of {veth} were looked for: {e}");
            Ok(None)
        }
        other => other,
    }
}

/// Puts back what a firewall's restart took, where any attachment of the node has NAT: for who has none
/// itself, and is not failed by it. Who has some notices by itself. And takes away what stayed for bridged
/// pods alone with the last of them; `gone` is the veth of who is just going.
pub async fn repair_and_log(node: &Conn, gone: Option<&str>) {
    let repaired = async {
        let records = Records::of_this_node()?;
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
        log::error!("other pods' NAT: {e}");
    }
}

/// Puts back all that attachments' CHECKs would complain of, and returns it in words.
pub async fn repair(node: &Conn) -> Result<Vec<String>, CniError> {
    let nat = Nat::open()?;
    let mut repaired = Vec::new();
    if !nat.records.are_absent() {
        repaired = nat.repair(node).await?;
    } else if nat.nft.has_table(TABLE).is_err() {
        // A kernel without nf_tables filters nothing by them.
        return Ok(repaired);
    }
    repaired.extend(nat.repair_bridged(node).await?);
    Ok(repaired)
}

/// Takes away what stayed for bridged pods alone, when the last of them has gone: of two that go at once,
/// each may have seen the other.
pub async fn remove_unused_table_and_log(node: &Conn) {
    let ended = async {
        let records = Records::of_this_node()?;
        if records.are_absent() || !records.is_empty() {
            return Ok(());
        }
        Nat { nft: Nft::open()?, records }.remove_table_if_unused(node, None, None).await
    };
    let ended: Result<(), CniError> = ended.await;
    if let Err(e) = ended {
        log::error!("what is left of NAT: {e}");
    }
}

/// Takes our table and our rules in tables of iptables' away where no attachment has a record, whatever left
/// them there.
pub async fn remove_leftovers(node: &Conn) -> Result<(), CniError> {
    let Ok(nft) = Nft::open() else { return Ok(()) };
    // A kernel without nf_tables has neither.
    if nft.has_table(TABLE).is_err() {
        return Ok(());
    }
    Nat { nft, records: Records::of_this_node()? }.remove_table_if_unused(node, None, None).await
}

/// Undoes NAT of every attachment of a network but those whose veths are `wanted`.
pub async fn collect(node: &Conn, network: &str, wanted: &[String], may_have: bool) -> Result<(), CniError> {
    let known = !Records::of_this_node()?.are_absent();
    if !may_have && !known {
        return Ok(());
    }
    let collected = async { Nat::open()?.collect(node, network, wanted).await };
    match collected.await {
        Err(e) if !known => {
            log::warn!("no rules of network {network} were looked for: {e}");
            Ok(())
        }
        other => other,
    }
}

/// For CHECK: what of an attachment's NAT is no longer as ADD left it. `expected`: by its configuration it
/// has some.
pub fn difference(veth: &str, expected: bool) -> Result<Option<String>, CniError> {
    let records = Records::of_this_node()?;
    if expected || records.has(veth) { Nat::open()?.difference(veth, expected) } else { Ok(None) }
}

fn delete(element: &Element) -> Change {
    delete_key(element.set, element.key.clone())
}

fn delete_key(set: &'static str, key: Vec<u8>) -> Change {
    Change::DeleteElement { table: TABLE, set, key }
}
