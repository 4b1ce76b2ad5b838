//! The guard, which limits what a pod may send: installs and removes an attachment's elements in the node's
//! packet filter. `plan::guard` defines the elements.
//!
//! The guard restricts a port to the pod's MAC before the node's end comes up. It allows the pod's
//! addresses once IPAM has returned them. The record is written before the latter. Leftovers without a
//! record are found by the port's element, which is added first and removed last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::network::Network;
use cni_conf::vlans::PortVlans;
use ipnet::IpNet;
use kernel::Conn;
use kernel::link::Link;
use kernel::nft::{self, Change, Element};
use kernel::nft::{Nft, RefusedChange, explain};

use crate::lock::RecordLock;
use crate::ownership::Attachment;
use crate::plan::guard::damage::{self, Count};
use crate::plan::guard::ruleset::{self, MACS, PORTS, TABLE};
use crate::plan::guard::{Limits, Port, describe_element, elements};
use crate::plan::nat::element_comment;
use crate::record::{GuardRecord, Records};
use crate::repairs::{Repairs, Subject};

/// How often an ADD retries if the table disappears before it is used.
const ATTEMPTS: usize = 20;

/// The node's packet filter and the records of the guards in it.
#[derive(Debug)]
pub struct GuardTable {
    nft: Nft,
    records: Records<GuardRecord>,
}

/// What a pod of this network may send. None if it is not restricted.
pub fn limits(network: &Network) -> Option<Limits> {
    let guard = network.guard.as_ref()?;
    let has_tagged = |vlans: &&PortVlans| vlans.ids().any(|vid| Some(vid) != vlans.access);
    let tagged = network.port_vlans.as_ref().filter(has_tagged);
    Some(Limits {
        by_address: guard.addresses,
        allowed: guard.allowed.clone(),
        any_link_local: guard.any_link_local,
        trunk: tagged.map(|vlans| vlans.access),
    })
}

impl GuardTable {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<GuardTable, CniError> {
        Ok(GuardTable { nft: Nft::open()?, records: Records::of_this_node()? })
    }

    /// Fails and names the module if the kernel lacks one. Changes nothing. If our table exists, the kernel
    /// has all modules.
    pub fn probe(&self) -> Result<(), CniError> {
        if self.nft.has_table(TABLE)? { Ok(()) } else { Ok(self.nft.check(&ruleset::base_ruleset())?) }
    }

    /// Allows only the pod's MAC, and of IP addresses only the link-local address of that MAC. Called
    /// before the node's end is up. Restores flushed rules and sets first.
    pub async fn restrict_port(&self, node: &Conn, port: &Port<'_>) -> Result<(), CniError> {
        self.restore(node, true).await?;
        self.install_elements(node, &elements(port), None).await
    }

    /// Rebuilds the table if it is damaged. To find flushed sets, it looks at the elements of one pod.
    async fn restore(&self, node: &Conn, for_first: bool) -> Result<(), CniError> {
        if self.broken_chain()?.is_some() || self.lacks_elements_of_any_pod()? {
            self.rebuild(node, for_first).await?;
        }
        Ok(())
    }

    /// Writes the record and allows the pod's addresses.
    pub async fn allow_addresses(&self, node: &Conn, record: &GuardRecord) -> Result<(), CniError> {
        self.install_elements(node, &elements_of(record), Some(record)).await
    }

    async fn install_elements(
        &self,
        node: &Conn,
        elements: &[Element],
        record: Option<&GuardRecord>,
    ) -> Result<(), CniError> {
        let changes: Vec<Change> = elements.iter().cloned().map(add).collect();
        for _ in 0..ATTEMPTS {
            {
                let _lock = RecordLock::shared()?;
                if let Some(record) = record {
                    self.records.write(record)?;
                }
                match self.nft.try_commit(&changes)? {
                    Ok(()) => return Ok(()),
                    Err(refusals) if refusals.iter().any(RefusedChange::not_found) => {}
                    Err(refusals) => return Err(explain(&changes, &refusals).into()),
                }
            }
            self.rebuild(node, true).await?;
        }
        let why =
            "other programs keep changing the packet filter: the guard was not installed after 20 attempts";
        Err(CniError::new(code::TRY_AGAIN_LATER, why))
    }

    /// Removes an attachment's elements and then its record. Missing elements are no error.
    async fn remove(&self, node: &Conn, veth: &str) -> Result<(), CniError> {
        let had_all = {
            let _lock = RecordLock::shared()?;
            let there = match self.records.read(veth) {
                Some(record) => elements_of(&record).iter().rev().map(delete).collect(),
                None => self.leftovers_of(veth)?,
            };
            let had_all = self.nft.commit_tolerating(there, RefusedChange::not_found)?;
            self.records.remove(veth)?;
            had_all
        };
        if had_all {
            self.restore(node, false).await?;
        } else {
            self.rebuild(node, false).await?;
        }
        // The table stays for the next first pod, as bridge and uplink do.
        if self.records.is_empty() {
            let _lock = RecordLock::exclusive()?;
            self.records.end();
        }
        Ok(())
    }

    /// Changes that delete the elements of an attachment without a record. Their keys begin with the port's
    /// name. The sets are listed only if the port's own element exists.
    fn leftovers_of(&self, veth: &str) -> Result<Vec<Change>, CniError> {
        let name = nft::interface(veth);
        if self.nft.element(TABLE, PORTS, &name)?.is_none() {
            return Ok(Vec::new());
        }
        let mut deletions = Vec::new();
        for set in ruleset::ALL.into_iter().rev() {
            let of_port =
                self.nft.elements(TABLE, set)?.into_iter().filter(|there| there.key.starts_with(&name));
            deletions.extend(of_port.map(|there| Change::DeleteElement {
                table: TABLE,
                set,
                key: there.key,
            }));
        }
        Ok(deletions)
    }

    /// Rebuilds a damaged table with the elements of all live attachments, in one transaction. Without live
    /// attachments, it does so only if `for_first`: the caller is about to add the first element.
    async fn rebuild(&self, node: &Conn, for_first: bool) -> Result<(), CniError> {
        let _lock = RecordLock::exclusive()?;
        let live = self.records.live(node, None).await?;
        let elements: Vec<Element> = live.iter().flat_map(elements_of).collect();
        let is_broken = self.broken_chain()?.is_some() || self.lacks_any(&elements)?;
        if !is_broken || live.is_empty() && !for_first {
            return Ok(());
        }
        let changes: Vec<Change> =
            ruleset::base_ruleset().into_iter().chain(elements.into_iter().map(add)).collect();
        self.nft.commit(&changes)?;
        if !live.is_empty() {
            log::warn!("restored the guard of {} pods, which was missing from the packet filter", live.len());
        }
        Ok(())
    }

    /// Whether an element of some pod with a guard is missing. A flush of a set removes the elements of all
    /// pods, so one pod is enough.
    fn lacks_elements_of_any_pod(&self) -> Result<bool, CniError> {
        let Some(record) = self.records.any() else { return Ok(false) };
        Ok(self.lost_element(&record)?.is_some())
    }

    fn lost_element(&self, record: &GuardRecord) -> Result<Option<Element>, CniError> {
        for element in elements_of(record) {
            if self.nft.element(TABLE, element.set, &element.key)?.is_none() {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// The keys of all elements of all sets: one list of each set is cheaper than a look for each element.
    fn keys(&self) -> Result<BTreeMap<&'static str, BTreeSet<Vec<u8>>>, CniError> {
        let keys = |set| -> Result<_, CniError> {
            Ok((set, self.nft.elements(TABLE, set)?.into_iter().map(|element| element.key).collect()))
        };
        ruleset::ALL.into_iter().map(keys).collect()
    }

    /// Whether one of these elements is missing.
    fn lacks_any(&self, elements: &[Element]) -> Result<bool, CniError> {
        let keys = self.keys()?;
        Ok(elements.iter().any(|element| !is_among(&keys, element)))
    }

    /// A chain of the table that is missing or changed.
    fn broken_chain(&self) -> Result<Option<String>, CniError> {
        damage::broken_chain(|name, count| {
            let Some(chain) = self.nft.chain(TABLE, name)? else { return Ok(None) };
            Ok(Some(match count {
                Count::Rules => self.nft.rules(TABLE, name)?.len(),
                Count::Uses => chain.uses as usize,
            }))
        })
    }

    /// Describes what is missing or changed in an attachment's guard.
    fn difference(&self, port: &Port<'_>) -> Result<Option<String>, CniError> {
        if let Some(chain) = self.broken_chain()? {
            return Ok(Some(format!("chain {chain} of table {TABLE} is gone or changed")));
        }
        for element in elements(port) {
            if self.nft.element(TABLE, element.set, &element.key)?.is_some() {
                continue;
            }
            let hint = match element.set {
                MACS => format!(", {} (a chained plugin that changes it needs guard: false)", port.mac),
                _ => String::new(),
            };
            return Ok(Some(format!("{}{hint} is gone from table {TABLE}", describe_element(&element))));
        }
        Ok(None)
    }
}

/// Removes an attachment's guard if it `may_have` one or has a record. Returns the socket: closing it waits
/// until the kernel has freed the deleted elements.
pub async fn detach(node: &Conn, veth: &str, may_have: bool) -> Result<Option<Nft>, CniError> {
    let known = Records::<GuardRecord>::of_this_node()?.has(veth);
    if !may_have && !known {
        return Ok(None);
    }
    let removed = async {
        let guard = GuardTable::open()?;
        guard.remove(node, veth).await?;
        Ok(Some(guard.nft))
    };
    match removed.await {
        // For example a kernel without nf_tables: ADD was refused, so there are no elements.
        Err(e) if !known => {
            let e: CniError = e;
            log::warn!("could not look for a guard of {veth}: {e}");
            Ok(None)
        }
        other => other,
    }
}

/// For CHECK: describes what is missing or changed in an attachment's guard. Compares with the
/// configuration and the pod's current state, not with the record, which is for repair.
pub fn difference(
    network: &Network,
    attachment: &Attachment<'_>,
    mac: MacAddr,
    addresses: &[IpAddr],
) -> Result<Option<String>, CniError> {
    let Some(limits) = limits(network) else { return Ok(None) };
    let veth = attachment.host_interface();
    GuardTable::open()?.difference(&Port { veth: &veth, mac, addresses, limits: &limits, comment: "" })
}

/// The guarded ports, by veth name.
pub fn ports() -> Result<Vec<String>, CniError> {
    let ports = Nft::open()?.elements(TABLE, PORTS)?;
    Ok(ports.iter().map(|port| nft::interface_name(&port.key)).collect())
}

/// The veths among these whose guard is damaged, each with a description of what is missing. Without a
/// record, the elements of a veth are unknown.
pub fn broken<'a>(veths: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, CniError> {
    let guard = GuardTable::open()?;
    if let Some(chain) = guard.broken_chain()? {
        let what = format!("chain {chain} of table {TABLE} is gone or changed");
        return Ok(veths.map(|veth| (veth.to_owned(), what.clone())).collect());
    }
    let veths: Vec<&str> = veths.collect();
    let keys = if veths.len() > 1 { Some(guard.keys()?) } else { None };
    let mut broken = Vec::new();
    for veth in veths {
        let Some(record) = guard.records.read(veth) else { continue };
        // An ADD may have written the record after the lists were made.
        let has_all = |keys| elements_of(&record).iter().all(|element| is_among(keys, element));
        let lost = if keys.as_ref().is_some_and(has_all) { None } else { guard.lost_element(&record)? };
        let what = lost.map(|element| format!("{} is gone from table {TABLE}", describe_element(&element)));
        broken.extend(what.map(|what| (veth.to_owned(), what)));
    }
    Ok(broken)
}

fn is_among(keys: &BTreeMap<&str, BTreeSet<Vec<u8>>>, element: &Element) -> bool {
    keys.get(element.set).is_some_and(|keys| keys.contains(&element.key))
}

/// Restores guards that a firewall restart removed. For calls whose own attachment has no guard. Errors are
/// logged and do not fail the call.
pub async fn repair_and_log(node: &Conn) {
    let repaired = async {
        let records = Records::of_this_node()?;
        if records.is_empty() {
            Ok(())
        } else {
            GuardTable { nft: Nft::open()?, records }.restore(node, false).await
        }
    };
    let repaired: Result<(), CniError> = repaired.await;
    if let Err(e) = repaired {
        log::error!("could not restore the guards of other pods: {e}");
    }
}

/// Restores what is missing from any pod's guard.
pub async fn repair(node: &Conn, repairs: &mut Repairs<'_>) -> Result<(), CniError> {
    let records = Records::of_this_node()?;
    if records.is_empty() {
        return Ok(());
    }
    let veths = records.veths();
    let lost = broken(veths.iter().map(String::as_str))?;
    let lost: Vec<String> = lost.into_iter().map(|(veth, what)| format!("{veth}: {what}")).collect();
    if !lost.is_empty() && repairs.permits(&Subject::Guards, &lost) {
        GuardTable { nft: Nft::open()?, records }.rebuild(node, false).await?;
        repairs.restored(&Subject::Guards, lost);
    }
    Ok(())
}

/// Removes our table, for uninstall. A kernel without nf_tables has none.
pub fn remove_table() -> Result<(), CniError> {
    let Ok(nft) = Nft::open() else { return Ok(()) };
    if nft.has_table(TABLE).unwrap_or(false) {
        Ok(nft.commit(&[Change::DeleteTable(TABLE)])?)
    } else {
        Ok(())
    }
}

/// Removes leftovers of attachments of any network whose veth is gone. The caller must list the veths after
/// the ports, because ADD makes the veth first.
pub fn remove_stale(ports: &[String], links: &[&Link]) -> Result<(), CniError> {
    if ports.is_empty() {
        return Ok(());
    }
    let guard = GuardTable::open()?;
    for veth in ports.iter().filter(|veth| !links.iter().any(|link| link.name == **veth)) {
        log::info!("removing the guard of {veth}: the veth is gone");
        let _lock = RecordLock::shared()?;
        guard.nft.commit_tolerating(guard.leftovers_of(veth)?, RefusedChange::not_found)?;
        guard.records.remove(veth)?;
    }
    Ok(())
}

fn elements_of(record: &GuardRecord) -> Vec<Element> {
    let GuardRecord { pod, limits } = record;
    let Some(mac) = pod.mac else { return Vec::new() };
    let addresses: Vec<IpAddr> = pod.addresses.iter().map(IpNet::addr).collect();
    let attachment = pod.attachment();
    let (veth, comment) = (attachment.host_interface(), element_comment(&attachment));
    elements(&Port { veth: &veth, mac, addresses: &addresses, limits, comment: &comment })
}

fn add(element: Element) -> Change {
    Change::AddElement { table: TABLE, element }
}

fn delete(element: &Element) -> Change {
    Change::DeleteElement { table: TABLE, set: element.set, key: element.key.clone() }
}
