//! A FORWARD policy of drop, as Docker and ufw set it. An accept in our table does not override it, so one
//! rule in that table accepts packets that our chain has marked.

use std::net::IpAddr;
use std::path::Path;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use ipnet::IpNet;
use kernel::nft::Nft;
use kernel::nft::{Change, Table, TableFamily};
use kernel::{Conn, NetError};

use super::Nat;
use super::bridges::{bridges_of_pods, tables_seeing_bridged};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::accept::{self, Present};
use crate::plan::nat::ruleset::{
    DEVICES, FORWARD, IPTABLES_FORWARD, IPTABLES_TABLES, TABLE, UPLINKS, forward,
};
use crate::record::NatRecord;

impl Nat {
    /// Installs chain and rule if a policy requires them and they are missing. All bridges of our pods are
    /// added, because pods attached before the policy have no record of it.
    pub(super) async fn ensure_forward_rules(&self, node: &Conn, record: &NatRecord) -> Result<(), CniError> {
        warn_of_legacy(record);
        let addresses: Vec<IpAddr> = record.pod.addresses.iter().map(IpNet::addr).collect();
        let tables = IPTABLES_TABLES.into_iter().filter(|table| applies_to(*table, &addresses));
        if !self.any_needs_change(tables)? {
            return Ok(());
        }
        self.install_forward_rules(node, device_changes([record])).await
    }

    /// Rewrites chain and rules, with all bridges of our pods, after the changes in `changes`.
    pub(super) async fn install_forward_rules(
        &self,
        node: &Conn,
        mut changes: Vec<Change>,
    ) -> Result<(), CniError> {
        let _lock = RecordLock::exclusive()?;
        changes.extend(forward());
        for table in IPTABLES_TABLES {
            let (drops, present) = (drops(&self.nft, table)?, present(&self.nft, table)?);
            // Several rules, or a rule in another form that a later save and restore may turn into one that
            // accepts everything, are replaced by one.
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

    /// Restores what attachments share and [`Nat::is_whole`] does not check: their devices in the sets of
    /// the base rule set, and our rules in other tables, which are removed when those tables are reloaded.
    /// A flush of a set removes the elements of all pods, so one pod is enough to notice it.
    pub(super) async fn restore_shared(&self, node: &Conn) -> Result<(), CniError> {
        if !self.lacks_shared_rules()? {
            return Ok(());
        }
        let lock = RecordLock::exclusive()?;
        // An ADD may have been between its record and its rules.
        if !self.lacks_shared_rules()? {
            return Ok(());
        }
        log::warn!("rules that accept pods' packets are missing from the packet filter: restoring them");
        let all = self.records.all();
        self.nft.commit(&device_changes(all.iter().map(|(_, record)| &**record)))?;
        drop(lock);
        for (_, record) in &all {
            self.ensure_forward_rules(node, record).await?;
        }
        Ok(())
    }

    fn lacks_shared_rules(&self) -> Result<bool, CniError> {
        let Some(one) = self.records.any() else { return Ok(false) };
        Ok(self.any_needs_change(IPTABLES_TABLES)? || self.lost_device(&one)?.is_some())
    }

    /// Whether one of these tables drops forwarded packets and lacks our exact rule, or has a rule of ours
    /// that accepts everything.
    fn any_needs_change(&self, tables: impl IntoIterator<Item = Table>) -> Result<bool, CniError> {
        for table in tables {
            let Some(chain) = self.nft.chain(table, IPTABLES_FORWARD)? else { continue };
            let present = present(&self.nft, table)?;
            if present.passes_all || chain.drops && !(present.is_exact && has_marking_chain(&self.nft)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the policy of a table drops what the node forwards for some attachment, without a rule of ours
    /// that accepts it.
    pub(super) fn is_any_dropped(&self) -> Result<bool, CniError> {
        for table in IPTABLES_TABLES {
            if self.drops_ours(table)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drops_ours(&self, table: Table) -> Result<bool, CniError> {
        Ok(drops(&self.nft, table)? && !has_accept_rule(&self.nft, table)?)
    }

    /// The tables whose policy drops what the node forwards in the attachment's families, without a rule of
    /// ours that accepts it.
    fn forward_missing(&self, record: &NatRecord) -> Result<Vec<Table>, CniError> {
        let addresses: Vec<IpAddr> = record.pod.addresses.iter().map(IpNet::addr).collect();
        let mut missing = Vec::new();
        for table in IPTABLES_TABLES.into_iter().filter(|table| applies_to(*table, &addresses)) {
            if self.drops_ours(table)? {
                missing.push(table);
            }
        }
        Ok(missing)
    }

    /// Describes what is missing.
    pub(super) fn forward_difference(&self, record: &NatRecord) -> Result<Option<String>, CniError> {
        let missing = self.forward_missing(record)?;
        Ok(missing.first().map(|table| {
            format!(
                "chain {IPTABLES_FORWARD} of table {table} drops, and vlan-bridge's rule there is gone or accepts everything, \
                 or chain {FORWARD} of table {TABLE} is gone"
            )
        }))
    }

    /// The set that lacks a device of the attachment.
    pub(super) fn lost_device(&self, record: &NatRecord) -> Result<Option<&'static str>, CniError> {
        for element in plan::device_elements(record) {
            if self.nft.element(TABLE, element.set, &element.key)?.is_none() {
                return Ok(Some(element.set));
            }
        }
        Ok(None)
    }

    /// The changes that remove our rules from other tables.
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

/// Opens the packet filter if one of the tables drops forwarded packets. None if no table does, or `tables`
/// is empty.
pub(super) fn open_if_dropping(tables: &[Table]) -> Option<Nft> {
    if tables.is_empty() {
        return None;
    }
    let look = || -> Result<Option<Nft>, NetError> {
        let nft = Nft::open()?;
        for table in tables {
            if drops(&nft, *table)? {
                return Ok(Some(nft));
            }
        }
        Ok(None)
    };
    look().unwrap_or_else(|e| {
        log::warn!("could not find out whether the packet filter drops what pods send: {e}");
        None
    })
}

/// The tables in the path of the pods' packets, for a network without NAT: with an uplink, those to which
/// br_netfilter passes bridged packets; with the node as gateway, all.
pub(super) fn tables_in_path(network: &Network) -> Vec<Table> {
    match network {
        _ if network.has_nat() => Vec::new(),
        _ if network.uplink.is_some() => tables_seeing_bridged(),
        _ if network.is_gateway && network.ipam.is_some() => IPTABLES_TABLES.to_vec(),
        _ => Vec::new(),
    }
}

/// The iptables tables in which a rule of ours accepts everything: it lost its mark when the rules were
/// saved and restored.
pub fn tables_accepting_everything() -> Result<Vec<Table>, CniError> {
    let nft = Nft::open()?;
    let mut found = Vec::new();
    for table in IPTABLES_TABLES {
        if nft.chain(table, IPTABLES_FORWARD)?.is_some() && present(&nft, table)?.passes_all {
            found.push(table);
        }
    }
    Ok(found)
}

/// Whether a rule of ours accepts what pods send by a device, in the iptables table of that family.
pub fn is_accepted_by_our_rule(device: &str, family: TableFamily) -> Result<bool, CniError> {
    let nft = Nft::open()?;
    for table in IPTABLES_TABLES.into_iter().filter(|table| table.family == family) {
        if !has_accept_rule(&nft, table)? {
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

/// Whether our rule in the table accepts marked packets, and our chain that marks them exists with its
/// rules.
pub(super) fn has_accept_rule(nft: &Nft, table: Table) -> Result<bool, NetError> {
    Ok(present(nft, table)?.passes_marked && has_marking_chain(nft)?)
}

/// Whether the chain that marks packets exists with its rules.
fn has_marking_chain(nft: &Nft) -> Result<bool, NetError> {
    let is_rule = |change: &&Change| matches!(change, Change::AddRule { .. });
    let rules = forward().iter().filter(is_rule).count() as u32;
    Ok(nft.chain(TABLE, FORWARD)?.is_some_and(|chain| chain.uses >= rules))
}

/// The changes that add attachments' devices to the shared sets. If only one element of a device has a
/// comment, the kernel keeps the first.
pub(super) fn device_changes<'a>(records: impl IntoIterator<Item = &'a NatRecord>) -> Vec<Change> {
    let mut elements: Vec<_> = records.into_iter().flat_map(plan::device_elements).collect();
    elements.sort_by_key(|element| !element.comment.is_empty());
    elements.into_iter().map(|element| Change::AddElement { table: TABLE, element }).collect()
}

/// The state of our rule in an iptables table.
fn present(nft: &Nft, table: Table) -> Result<Present, NetError> {
    Ok(accept::find(&nft.rules(table, IPTABLES_FORWARD)?))
}

/// Whether a pod with these addresses has packets of the table's family. If the addresses are unknown, it
/// may.
pub(super) fn applies_to(table: Table, addresses: &[IpAddr]) -> bool {
    let ipv4 = table.family == TableFamily::Ipv4;
    addresses.is_empty() || addresses.iter().any(|ip| ip.is_ipv4() == ipv4)
}

fn warn_of_legacy(record: &NatRecord) {
    let addresses: Vec<IpAddr> = record.pod.addresses.iter().map(IpNet::addr).collect();
    let tables: Vec<Table> =
        IPTABLES_TABLES.into_iter().filter(|table| applies_to(*table, &addresses)).collect();
    warn_of_legacy_on(&record.pod.device, &tables);
}

/// Warns for a pod without NAT. The device is the pod's gateway, or the bridge.
pub(super) fn warn_of_legacy_without_nat(network: &Network, tables: &[Table]) {
    let device = if network.is_gateway { network.node_device() } else { network.bridge.clone() };
    warn_of_legacy_on(&device, tables);
}

/// Legacy iptables is not part of nf_tables: we cannot write its rules.
fn warn_of_legacy_on(device: &str, tables: &[Table]) {
    for table in tables {
        let (names, program) = match table.family {
            TableFamily::Ipv4 => ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
            _ => ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
        };
        let tables = std::fs::read_to_string(Path::new(names)).unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            log::warn!(
                "{program} is in use, and only an operator can add rules there. If its FORWARD policy is DROP, accept the pods' packets: \
                 {program} -A FORWARD -i {device} -j ACCEPT; {program} -A FORWARD -o {device} -j ACCEPT"
            );
        }
    }
}
