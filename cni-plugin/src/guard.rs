//! What a pod may send: puts an attachment's elements into the node's packet filter and takes them out.
//! `plan::guard` says what they are.
//!
//! A port is guarded by the pod's MAC before the node's end comes up, and by its addresses as soon as IPAM
//! has given them. The record is written before the latter. What is left without a record is found by the
//! element of the port, which is there first and goes last.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::network::Network;
use cni_conf::vlans::PortVlans;
use ipnet::IpNet;
use kernel::Conn;
use kernel::link::Link;
use kernel::nft::{self, Change, Element};
use kernel::nft::{Nft, Refusal, explain};

use crate::lock::RecordLock;
use crate::ownership::Attachment;
use crate::plan::guard::ruleset::{self, MACS, PORTS, TABLE};
use crate::plan::guard::{Limits, Port, elements, what};
use crate::plan::nat::element_comment;
use crate::record::{Record, Records};

/// How often an ADD tries again after the table has gone between its making and its use.
const ATTEMPTS: usize = 20;

/// The node's packet filter and the records of what is in it.
#[derive(Debug)]
pub struct Guard {
    nft: Nft,
    records: Records,
}

/// What a pod of this network may send; none where it may send anything.
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

impl Guard {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Guard, CniError> {
        Ok(Guard { nft: Nft::open()?, records: Records::of_guards()? })
    }

    /// Fails, naming the module, where the kernel lacks a part. Changes nothing. A node that has our table
    /// has all parts.
    pub fn probe(&self) -> Result<(), CniError> {
        if self.nft.has_table(TABLE)? { Ok(()) } else { Ok(self.nft.check(&ruleset::base_ruleset())?) }
    }

    /// Before the node's end is up: nothing but what has its MAC, and with it no address but the link-local
    /// one. Rules and sets that somebody has flushed are put back first.
    pub async fn restrict_port(&self, node: &Conn, port: &Port<'_>) -> Result<(), CniError> {
        self.restore(node, true).await?;
        self.install_elements(node, &elements(port), None).await
    }

    /// Rebuilds the table where it is not as it should be. One pod's elements stand for all.
    async fn restore(&self, node: &Conn, for_first: bool) -> Result<(), CniError> {
        if self.broken_chain()?.is_some() || self.lacks_a_neighbours()? {
            self.rebuild(node, for_first).await?;
        }
        Ok(())
    }

    /// Writes the record and lets pass what has one of the pod's addresses.
    pub async fn allow_addresses(&self, node: &Conn, record: &Record) -> Result<(), CniError> {
        self.install_elements(node, &elements_of(record), Some(record)).await
    }

    async fn install_elements(
        &self,
        node: &Conn,
        elements: &[Element],
        record: Option<&Record>,
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
                    Err(refusals) if refusals.iter().any(Refusal::not_found) => {}
                    Err(refusals) => return Err(explain(&changes, &refusals).into()),
                }
            }
            self.rebuild(node, true).await?;
        }
        let why = "the packet filter changes all the time: the guard was not put in after 20 attempts";
        Err(CniError::new(code::TRY_AGAIN_LATER, why))
    }

    /// Takes an attachment's elements out, and then its record. What is not there is no error.
    async fn remove(&self, node: &Conn, veth: &str) -> Result<(), CniError> {
        let whole = {
            let _lock = RecordLock::shared()?;
            let there = match self.records.read(veth) {
                Some(record) => elements_of(&record).iter().rev().map(delete).collect(),
                None => self.left_of(veth)?,
            };
            let whole = self.nft.commit_tolerating(there, Refusal::not_found)?;
            self.records.remove(veth)?;
            whole
        };
        if whole {
            self.restore(node, false).await?;
        } else {
            self.rebuild(node, false).await?;
        }
        // The table stays, as bridge and uplink do: the next first pod finds it.
        if self.records.is_empty() {
            let _lock = RecordLock::exclusive()?;
            self.records.end();
        }
        Ok(())
    }

    /// What takes out the elements of an attachment without a record: by its port, with which their keys
    /// begin. The list is asked for only where the port's own is there.
    fn left_of(&self, veth: &str) -> Result<Vec<Change>, CniError> {
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

    /// Makes the table, if it is not as it should be, with the elements of all live attachments, in one
    /// transaction. Where there are none it is made only for who is about to put in the first.
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
            log::warn!("the guard of {} pods was gone from the packet filter and is back", live.len());
        }
        Ok(())
    }

    /// Whether an element of some pod with a guard is gone: who has flushed a set has taken everybody's, so
    /// one pod stands for all.
    fn lacks_a_neighbours(&self) -> Result<bool, CniError> {
        let Some(record) = self.records.any() else { return Ok(false) };
        Ok(self.lost_element(&record)?.is_some())
    }

    fn lost_element(&self, record: &Record) -> Result<Option<Element>, CniError> {
        for element in elements_of(record) {
            if self.nft.element(TABLE, element.set, &element.key)?.is_none() {
                return Ok(Some(element));
            }
        }
        Ok(None)
    }

    /// Whether one of many elements is gone, by a list of each set.
    fn lacks_any(&self, elements: &[Element]) -> Result<bool, CniError> {
        for set in ruleset::ALL {
            let there: BTreeSet<Vec<u8>> =
                self.nft.elements(TABLE, set)?.into_iter().map(|element| element.key).collect();
            if elements.iter().any(|element| element.set == set && !there.contains(&element.key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A chain of the table that is not as it was made. Elements lead to entry chains, so of those only the
    /// rules are counted.
    fn broken_chain(&self) -> Result<Option<String>, CniError> {
        for (name, rules, uses) in ruleset::uses() {
            let is_entry = ruleset::ENTRIES.contains(&name.as_str());
            let whole = match self.nft.chain(TABLE, &name)? {
                Some(_) if is_entry => self.nft.rules(TABLE, &name)?.len() == rules,
                Some(chain) => chain.uses as usize == uses,
                None => false,
            };
            if !whole {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// What of an attachment's guard is no longer as it was put in, in words.
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
            return Ok(Some(format!("{}{hint} is gone from table {TABLE}", what(&element))));
        }
        Ok(None)
    }
}

/// Takes an attachment's guard out, where it `may_have` one or its record says so. Returns the socket, whose
/// closing would wait for what was deleted.
pub async fn detach(node: &Conn, veth: &str, may_have: bool) -> Result<Option<Nft>, CniError> {
    let known = Records::of_guards()?.has(veth);
    if !may_have && !known {
        return Ok(None);
    }
    let removed = async {
        let guard = Guard::open()?;
        guard.remove(node, veth).await?;
        Ok(Some(guard.nft))
    };
    match removed.await {
        // A kernel without nf_tables, for one: ADD was refused for it, and nothing can be there.
        Err(e) if !known => {
            let e: CniError = e;
            log::warn!("no guard of {veth} was looked for: {e}");
            Ok(None)
        }
        other => other,
    }
}

/// For CHECK: what of an attachment's guard is no longer as ADD left it. By the configuration and by what the
/// pod is now: the record is for repair.
pub fn difference(
    network: &Network,
    attachment: &Attachment<'_>,
    mac: MacAddr,
    addresses: &[IpAddr],
) -> Result<Option<String>, CniError> {
    let Some(limits) = limits(network) else { return Ok(None) };
    let veth = attachment.host_interface();
    Guard::open()?.difference(&Port { veth: &veth, mac, addresses, limits: &limits, comment: "" })
}

/// The ports that are guarded, by the names of their veths.
pub fn ports() -> Result<Vec<String>, CniError> {
    let ports = Nft::open()?.elements(TABLE, PORTS)?;
    Ok(ports.iter().map(|port| nft::interface_name(&port.key)).collect())
}

/// Of these veths those whose guard is not as it was put in, and what is missing, in words. Of one without a
/// record its elements are not known.
pub fn broken<'a>(veths: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, CniError> {
    let guard = Guard::open()?;
    let chain = guard.broken_chain()?;
    let mut broken = Vec::new();
    for veth in veths {
        let what = match (&chain, guard.records.read(veth)) {
            (Some(chain), _) => Some(format!("chain {chain} of table {TABLE} is gone or changed")),
            (None, Some(record)) => {
                let lost = guard.lost_element(&record)?;
                lost.map(|element| format!("{} is gone from table {TABLE}", what(&element)))
            }
            (None, None) => None,
        };
        broken.extend(what.map(|what| (veth.to_owned(), what)));
    }
    Ok(broken)
}

/// Puts back what a firewall's restart took of pods' guards, for who has none itself and is not failed by it.
pub async fn repair_and_log(node: &Conn) {
    let repaired = async {
        let records = Records::of_guards()?;
        if records.is_empty() {
            Ok(())
        } else {
            Guard { nft: Nft::open()?, records }.restore(node, false).await
        }
    };
    let repaired: Result<(), CniError> = repaired.await;
    if let Err(e) = repaired {
        log::error!("other pods' guards: {e}");
    }
}

/// Puts back what any pod's guard has lost, and returns it in words.
pub async fn repair(node: &Conn) -> Result<Vec<String>, CniError> {
    let records = Records::of_guards()?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let veths = records.veths();
    let lost = broken(veths.iter().map(String::as_str))?;
    if !lost.is_empty() {
        Guard { nft: Nft::open()?, records }.rebuild(node, false).await?;
    }
    Ok(lost.into_iter().map(|(veth, what)| format!("{veth}: {what}")).collect())
}

/// Takes our table away, for who takes all of us away. A kernel without nf_tables has none.
pub fn remove_table() -> Result<(), CniError> {
    let Ok(nft) = Nft::open() else { return Ok(()) };
    if nft.has_table(TABLE).unwrap_or(false) {
        Ok(nft.commit(&[Change::DeleteTable(TABLE)])?)
    } else {
        Ok(())
    }
}

/// Takes out what is left of attachments whose veth is gone, of whichever network. The veths must have been
/// listed after the ports: an ADD makes the veth first.
pub fn remove_stale(ports: &[String], links: &[&Link]) -> Result<(), CniError> {
    if ports.is_empty() {
        return Ok(());
    }
    let guard = Guard::open()?;
    for veth in ports.iter().filter(|veth| !links.iter().any(|link| link.name == **veth)) {
        log::info!("removing the guard of {veth}, which is gone");
        let _lock = RecordLock::shared()?;
        guard.nft.commit_tolerating(guard.left_of(veth)?, Refusal::not_found)?;
        guard.records.remove(veth)?;
    }
    Ok(())
}

fn elements_of(record: &Record) -> Vec<Element> {
    let (Some(limits), Some(mac)) = (&record.guard, record.mac) else { return Vec::new() };
    let addresses: Vec<IpAddr> = record.addresses.iter().map(IpNet::addr).collect();
    let attachment = record.attachment();
    let (veth, comment) = (attachment.host_interface(), element_comment(&attachment));
    elements(&Port { veth: &veth, mac, addresses: &addresses, limits, comment: &comment })
}

fn add(element: Element) -> Change {
    Change::AddElement { table: TABLE, element }
}

fn delete(element: &Element) -> Change {
    Change::DeleteElement { table: TABLE, set: element.set, key: element.key.clone() }
}
