//! A FORWARD policy of drop, as Docker and ufw set it: an accept in a table of ours does not override it, so
//! one rule in that table lets pass what a chain of ours has marked.

use std::net::IpAddr;
use std::path::Path;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use ipnet::IpNet;
use kernel::nft::Nft;
use kernel::nft::{Change, Table, TableFamily};
use kernel::{Conn, NetError};

use super::Nat;
use super::bridges::{bridges_of_pods, tables_called};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::accept::{self, Present};
use crate::plan::nat::ruleset::{
    DEVICES, FORWARD, IPTABLES_FORWARD, IPTABLES_TABLES, TABLE, UPLINKS, forward,
};
use crate::record::Record;

impl Nat {
    /// Puts chain and rule in where a policy asks for them and they are not there; and with them every bridge
    /// that pods of ours are on, for those that came before the policy have no record of it.
    pub(super) async fn let_forward(&self, node: &Conn, record: &Record) -> Result<(), CniError> {
        warn_of_legacy(record);
        let addresses: Vec<IpAddr> = record.addresses.iter().map(IpNet::addr).collect();
        let concerned = IPTABLES_TABLES.into_iter().filter(|table| concerns(*table, &addresses));
        if !self.any_unsettled(concerned)? {
            return Ok(());
        }
        self.put_forward(node, shared([record])).await
    }

    /// Makes chain and rules what they should be, with all bridges of pods, after these other changes.
    pub(super) async fn put_forward(&self, node: &Conn, mut changes: Vec<Change>) -> Result<(), CniError> {
        let _lock = RecordLock::exclusive()?;
        changes.extend(forward());
        for table in IPTABLES_TABLES {
            let (drops, present) = (drops(&self.nft, table)?, present(&self.nft, table)?);
            // Of several, or one in another form, which a later round trip may open, one is made.
            if !present.is_exact {
                changes.extend(accept::removal(table, &present.handles));
                changes.extend(drops.then(|| accept::rule(table)));
            }
        }
        let bridges = bridges_of_pods(node, None).await?;
        let element =
            |bridge: &String| Change::AddElement { table: TABLE, element: plan::bridged_element(bridge) };
        changes.extend(bridges.iter().map(element));
        Ok(self.nft.commit(&changes)?)
    }

    /// Puts back what attachments share with each other, and that a whole frame does not show: their devices
    /// in its sets, and our rules in others' tables, which go when those are loaded anew. Who has flushed a
    /// set has taken everybody's, so one pod stands for all.
    pub(super) async fn restore_shared(&self, node: &Conn) -> Result<(), CniError> {
        if !self.lacks_shared()? {
            return Ok(());
        }
        let lock = RecordLock::exclusive()?;
        // An ADD may have been between its record and the rest.
        if !self.lacks_shared()? {
            return Ok(());
        }
        log::warn!("what lets pods' packets pass is not all there in the packet filter: putting it back");
        let all = self.records.all();
        self.nft.commit(&shared(all.iter().map(|(_, record)| record)))?;
        drop(lock);
        for (_, record) in &all {
            self.let_forward(node, record).await?;
        }
        Ok(())
    }

    fn lacks_shared(&self) -> Result<bool, CniError> {
        let Some(one) = self.records.any() else { return Ok(false) };
        Ok(self.any_unsettled(IPTABLES_TABLES)? || self.lost_device(&one)?.is_some())
    }

    /// Whether one of these tables drops and has our rule not just as it should be, or has one that accepts
    /// everything.
    fn any_unsettled(&self, tables: impl IntoIterator<Item = Table>) -> Result<bool, CniError> {
        for table in tables {
            let Some(chain) = self.nft.chain(table, IPTABLES_FORWARD)? else { continue };
            let present = present(&self.nft, table)?;
            if present.passes_all || chain.drops && !(present.is_exact && marks(&self.nft)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tables whose policy drops what the attachment's family forwards, with nothing of ours that meets
    /// it.
    fn forward_missing(&self, record: &Record) -> Result<Vec<Table>, CniError> {
        let addresses: Vec<IpAddr> = record.addresses.iter().map(IpNet::addr).collect();
        let mut missing = Vec::new();
        for table in IPTABLES_TABLES.into_iter().filter(|table| concerns(*table, &addresses)) {
            if drops(&self.nft, table)? && !is_met(&self.nft, table)? {
                missing.push(table);
            }
        }
        Ok(missing)
    }

    /// What is missing, in words.
    pub(super) fn forward_difference(&self, record: &Record) -> Result<Option<String>, CniError> {
        let missing = self.forward_missing(record)?;
        Ok(missing.first().map(|table| {
            format!(
                "chain {IPTABLES_FORWARD} of table {table} drops, and our rule there is gone or accepts everything, or chain {FORWARD} \
                 of table {TABLE} is gone"
            )
        }))
    }

    /// The set that a device of the attachment's is gone from.
    pub(super) fn lost_device(&self, record: &Record) -> Result<Option<&'static str>, CniError> {
        for element in plan::device_elements(record) {
            if self.nft.element(TABLE, element.set, &element.key)?.is_none() {
                return Ok(Some(element.set));
            }
        }
        Ok(None)
    }

    /// What takes our rules out of others' tables.
    pub(super) fn forward_deletions(&self) -> Result<Vec<Change>, CniError> {
        let mut deletions = Vec::new();
        for table in IPTABLES_TABLES {
            if self.nft.chain(table, IPTABLES_FORWARD)?.is_none() {
                continue;
            }
            deletions.extend(accept::removal(table, &present(&self.nft, table)?.handles));
        }
        Ok(deletions)
    }
}

/// The packet filter, where one of the tables drops what it sees; none where none does, or none is to be
/// asked.
pub(super) fn where_dropped(called: &[Table]) -> Option<Nft> {
    if called.is_empty() {
        return None;
    }
    let look = || -> Result<Option<Nft>, NetError> {
        let nft = Nft::open()?;
        for table in called {
            if drops(&nft, *table)? {
                return Ok(Some(nft));
            }
        }
        Ok(None)
    };
    look().unwrap_or_else(|e| {
        log::warn!("whether the packet filter drops what pods send is not known: {e}");
        None
    })
}

/// The tables that see what the network's pods send, of a network without NAT: what is bridged where
/// br_netfilter shows it to them, and all that the node forwards as a gateway.
pub(super) fn called(network: &Network) -> Vec<Table> {
    match network {
        _ if network.has_nat() => Vec::new(),
        _ if network.uplink.is_some() => tables_called(),
        _ if network.is_gateway && network.ipam.is_some() => IPTABLES_TABLES.to_vec(),
        _ => Vec::new(),
    }
}

/// The tables of iptables' in which a rule of ours accepts everything: it has lost its mark when the rules
/// were saved and restored.
pub fn opened() -> Result<Vec<Table>, CniError> {
    let nft = Nft::open()?;
    let mut opened = Vec::new();
    for table in IPTABLES_TABLES {
        if nft.chain(table, IPTABLES_FORWARD)?.is_some() && present(&nft, table)?.passes_all {
            opened.push(table);
        }
    }
    Ok(opened)
}

/// Whether what pods send by a device passes the table of iptables' of that family by a rule of ours.
pub fn is_let_through(device: &str, family: TableFamily) -> Result<bool, CniError> {
    let nft = Nft::open()?;
    for table in IPTABLES_TABLES.into_iter().filter(|table| table.family == family) {
        if !is_met(&nft, table)? {
            return Ok(false);
        }
    }
    for set in [DEVICES, UPLINKS] {
        let element = plan::routed_element(set, device);
        if nft.element(TABLE, element.set, &element.key)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn drops(nft: &Nft, table: Table) -> Result<bool, NetError> {
    Ok(nft.chain(table, IPTABLES_FORWARD)?.is_some_and(|chain| chain.drops))
}

/// Whether what our chain marks passes the table, and there is the chain to mark it, with its rules.
pub(super) fn is_met(nft: &Nft, table: Table) -> Result<bool, NetError> {
    Ok(present(nft, table)?.passes_marked && marks(nft)?)
}

/// Whether the chain that marks what is to pass is there with its rules.
fn marks(nft: &Nft) -> Result<bool, NetError> {
    let is_rule = |change: &&Change| matches!(change, Change::AddRule { .. });
    let rules = forward().iter().filter(is_rule).count() as u32;
    Ok(nft.chain(TABLE, FORWARD)?.is_some_and(|chain| chain.uses >= rules))
}

/// What puts attachments' devices into the sets that all share. Of a device that has a comment for one of
/// them only, the kernel keeps the first.
pub(super) fn shared<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Change> {
    let mut elements: Vec<_> = records.into_iter().flat_map(plan::device_elements).collect();
    elements.sort_by_key(|element| !element.comment.is_empty());
    elements.into_iter().map(|element| Change::AddElement { table: TABLE, element }).collect()
}

/// What there is of our rule in a table of iptables'.
fn present(nft: &Nft, table: Table) -> Result<Present, NetError> {
    Ok(accept::find(&nft.rules(table, IPTABLES_FORWARD)?))
}

/// Whether a pod with these addresses has packets of the table's family. Where they are not known, it may.
pub(super) fn concerns(table: Table, addresses: &[IpAddr]) -> bool {
    let ipv4 = table.family == TableFamily::Ipv4;
    addresses.is_empty() || addresses.iter().any(|ip| ip.is_ipv4() == ipv4)
}

fn warn_of_legacy(record: &Record) {
    let addresses: Vec<IpAddr> = record.addresses.iter().map(IpNet::addr).collect();
    let concerned: Vec<Table> =
        IPTABLES_TABLES.into_iter().filter(|table| concerns(*table, &addresses)).collect();
    warn_of_legacy_on(&record.device, &concerned);
}

/// For a pod without NAT: what sees its packets is asked for the bridge, or for the device that is its
/// gateway.
pub(super) fn warn_of_legacy_without_nat(network: &Network, called: &[Table]) {
    let device = if network.is_gateway { network.node_device() } else { network.bridge.clone() };
    warn_of_legacy_on(&device, called);
}

/// Legacy iptables is no part of nf_tables: we cannot write there.
fn warn_of_legacy_on(device: &str, concerned: &[Table]) {
    for table in concerned {
        let (names, program) = match table.family {
            TableFamily::Ipv4 => ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
            _ => ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
        };
        let tables = std::fs::read_to_string(Path::new(names)).unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            log::warn!(
                "{program} is in use, where only an operator can let the pods' packets pass. If its FORWARD policy is DROP: \
                 {program} -A FORWARD -i {device} -j ACCEPT; {program} -A FORWARD -o {device} -j ACCEPT"
            );
        }
    }
}
