//! Installs an attachment's record and elements, and the node settings that they need.

use std::net::Ipv4Addr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::family::Family;
use kernel::nft::{Change, Element};
use kernel::nft::{RefusedChange, explain};
use kernel::sysctl::enable_forwarding;
use kernel::{Conn, NetError, link, route};

use super::forward::device_changes;
use super::{Nat, delete};
use crate::lock::RecordLock;
use crate::ownership::is_attachment;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::TABLE;
use crate::record::{NatRecord, as_ipv4};

/// How often an ADD retries after another call changed what it found: another first pod of a network or
/// node was faster, or took the port of a dead holder first.
const ATTEMPTS: usize = 20;

/// Why an attachment's elements could not be installed.
enum Obstacle {
    /// The base rule set or a chain is missing.
    Missing,
    /// Other attachments hold these elements. The strings are the elements' comments.
    Held(Vec<(Element, String)>),
    /// Elements of this attachment are left from an earlier attempt.
    Stale(Vec<Element>),
}

impl Nat {
    /// Writes the record and installs the elements. If a live attachment holds a host port, the error names
    /// it.
    pub async fn install(&self, node: &Conn, mut record: NatRecord) -> Result<(), CniError> {
        for mapping in &record.ports {
            if plan::targets(&record, mapping).is_empty() {
                return Err(CniError::config(format!(
                    "runtimeConfig.portMappings: host port {mapping}: the pod has no address of that family"
                )));
            }
        }
        record.localhost = localhost(node, &record).await?;
        self.exclude_service_addresses(node, &record).await?;
        self.install_elements(node, &mut record).await?;
        let record = &record;
        for family in Family::BOTH {
            let has_family = record.pod.addresses.iter().any(|net| Family::of_net(net) == family);
            if plan::is_routed(record) && has_family {
                enable_forwarding(node, family).await?;
            }
        }
        self.ensure_forward_rules(node, record).await?;
        self.delete_udp_conntrack_of_node(node, record).await;
        Ok(())
    }

    async fn install_elements(&self, node: &Conn, record: &mut NatRecord) -> Result<(), CniError> {
        let veth = record.pod.attachment().host_interface();
        let (mut stale, mut yielded) = (Vec::new(), Vec::new());
        for _ in 0..ATTEMPTS {
            let lock = RecordLock::shared()?;
            if !record.ports.is_empty() {
                record.followers =
                    self.records.read(&veth).map(|there| there.followers.clone()).unwrap_or_default();
            }
            self.records.write(record)?;
            let Some(obstacle) = self.try_install_elements(record, &stale, &yielded)? else { return Ok(()) };
            drop(lock);
            match obstacle {
                Obstacle::Missing => self.rebuild(node, Some(&veth), None).await?,
                Obstacle::Held(held) => yielded.extend(self.evict(node, record, &held).await?),
                Obstacle::Stale(elements) => stale = elements,
            }
        }
        let why =
            "other programs keep changing the packet filter: the rules were not installed after 20 attempts";
        Err(CniError::new(code::TRY_AGAIN_LATER, why))
    }

    /// The kernel delays the sender of a failed transaction by 10 ms and more (RCU). So chains that are
    /// likely to be missing are looked up first.
    fn try_install_elements(
        &self,
        record: &NatRecord,
        stale: &[Element],
        yielded: &[Element],
    ) -> Result<Option<Obstacle>, CniError> {
        let mut changes = Vec::new();
        for chain in plan::chains(record) {
            if self.nft.chain(TABLE, &chain.name)?.is_none() {
                changes.extend(chain.make());
            }
        }
        changes.extend(stale.iter().map(delete));
        let elements = plan::elements(record).into_iter().filter(|element| !yielded.contains(element));
        changes.extend(elements.map(create));
        changes.extend(device_changes([record]));
        let Err(refusals) = self.nft.try_commit(&changes)? else { return Ok(None) };
        if refusals.iter().any(RefusedChange::not_found) {
            return Ok(Some(Obstacle::Missing));
        }
        let own = plan::element_comment(&record.pod.attachment());
        let (mut held, mut stale) = (Vec::new(), Vec::new());
        for refusal in &refusals {
            let refused = refusal.change.and_then(|index| changes.get(index));
            let (Some(Change::CreateElement { element, .. }), true) = (refused, refusal.exists()) else {
                return Err(explain(&changes, &refusals).into());
            };
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == own => stale.push(element.clone()),
                Some(there) => held.push((element.clone(), there.comment)),
                // The element is gone by now.
                None => {}
            }
        }
        Ok(Some(if held.is_empty() { Obstacle::Stale(stale) } else { Obstacle::Held(held) }))
    }

    /// Removes dead holders of the elements with all that they have. A live holder is an error, unless it
    /// is the same container on another network. Returns the elements that such a sibling keeps.
    async fn evict(
        &self,
        node: &Conn,
        record: &NatRecord,
        held: &[(Element, String)],
    ) -> Result<Vec<Element>, CniError> {
        let _lock = RecordLock::exclusive()?;
        let mut yielded = Vec::new();
        for (element, comment) in held {
            // The element may have been removed, or changed its holder, before we had the lock.
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == *comment => {}
                _ => continue,
            }
            let Some(veth) = plan::veth_of(comment) else {
                let why = format!(
                    "{}: already in table {TABLE}, and not added by vlan-bridge",
                    plan::what(element)
                );
                return Err(CniError::new(code::PORT_TAKEN, why));
            };
            if link::by_name(node, veth).await?.is_some_and(|link| is_attachment(&link)) {
                if self.yield_to_sibling(record, element, comment)? {
                    yielded.push(element.clone());
                    continue;
                }
                return Err(CniError::new(
                    code::PORT_TAKEN,
                    format!("{}: held by {}", plan::what(element), plan::describe(comment)),
                ));
            }
            log::warn!("{}: taken over from {}, which is gone", plan::what(element), plan::describe(comment));
            if let Some(dead) = self.records.read(veth) {
                self.remove_elements(node, &dead).await?;
            }
            // A later DEL of the dead attachment must not find keys that belong to another attachment by
            // then.
            self.records.remove(veth)?;
            self.remove_by_comment(|comment| plan::veth_of(comment) == Some(veth))?;
        }
        Ok(yielded)
    }
}

/// The node's source address for connections to the pod's host ports at 127.0.0.1: the one that it uses for
/// the pod. None if no such port leads to the pod, or the node has no route to it.
pub(super) async fn localhost(node: &Conn, record: &NatRecord) -> Result<Option<Ipv4Addr>, NetError> {
    let Some(pod) = plan::target_of_localhost(record) else { return Ok(None) };
    if let Some(source) = record.sources.iter().copied().find_map(as_ipv4) {
        return Ok(Some(source));
    }
    Ok(route::lookup(node, pod).await?.and_then(|(_, source)| as_ipv4(source)))
}

pub(super) fn create(element: Element) -> Change {
    Change::CreateElement { table: TABLE, element }
}
