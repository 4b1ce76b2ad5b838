//! ADD's part: the record, the elements, and what they need of the node.

use std::net::Ipv4Addr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::family::Family;
use kernel::nft::{Change, Element};
use kernel::nft::{Refusal, explain};
use kernel::sysctl::enable_forwarding;
use kernel::{Conn, NetError, link, route};

use super::forward::shared;
use super::{Nat, delete};
use crate::lock::RecordLock;
use crate::ownership::is_attachment;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::TABLE;
use crate::record::{Record, as_ipv4};

/// How often an ADD tries again after somebody else has changed what it found: the first pod of a network or
/// a node, or one that took a dead holder's port, was quicker.
const ATTEMPTS: usize = 20;

/// Why an attachment's elements could not be put in.
enum Obstacle {
    /// The frame or a chain is not there.
    Missing,
    /// Others have what these comments tell.
    Held(Vec<(Element, String)>),
    /// Elements of our own are there from an earlier attempt.
    Stale(Vec<Element>),
}

impl Nat {
    /// Writes the record and puts the elements in. A port that a live attachment has is an error that names
    /// it.
    pub async fn install(&self, node: &Conn, mut record: Record) -> Result<(), CniError> {
        for mapping in &record.ports {
            if plan::targets(&record, mapping).is_empty() {
                return Err(CniError::config(format!(
                    "runtimeConfig.portMappings: host port {mapping}: the pod has no address of that family"
                )));
            }
        }
        record.localhost = localhost(node, &record).await?;
        self.leave_services_out(node, &record).await?;
        self.install_elements(node, &mut record).await?;
        let record = &record;
        for family in Family::BOTH {
            let has_family = record.addresses.iter().any(|net| Family::of_net(net) == family);
            if plan::is_routed(record) && has_family {
                enable_forwarding(node, family).await?;
            }
        }
        self.let_forward(node, record).await?;
        self.delete_udp_conntrack_of_node(node, record).await;
        Ok(())
    }

    async fn install_elements(&self, node: &Conn, record: &mut Record) -> Result<(), CniError> {
        let veth = record.attachment().host_interface();
        let (mut stale, mut left) = (Vec::new(), Vec::new());
        for _ in 0..ATTEMPTS {
            let lock = RecordLock::shared()?;
            if !record.ports.is_empty() {
                record.followers = self.records.read(&veth).map(|there| there.followers).unwrap_or_default();
            }
            self.records.write(record)?;
            let Some(obstacle) = self.try_install_elements(record, &stale, &left)? else { return Ok(()) };
            drop(lock);
            match obstacle {
                Obstacle::Missing => self.rebuild(node, Some(&veth), None).await?,
                Obstacle::Held(held) => left.extend(self.evict(node, record, &held).await?),
                Obstacle::Stale(elements) => stale = elements,
            }
        }
        let why = "the packet filter changes all the time: not put in after 20 attempts";
        Err(CniError::new(code::TRY_AGAIN_LATER, why))
    }

    /// The kernel keeps who sends a transaction that fails waiting for 10 ms and more (RCU), so it is asked
    /// first for what is likely to be missing.
    fn try_install_elements(
        &self,
        record: &Record,
        stale: &[Element],
        left: &[Element],
    ) -> Result<Option<Obstacle>, CniError> {
        let mut changes = Vec::new();
        for chain in plan::chains(record) {
            if self.nft.chain(TABLE, &chain.name)?.is_none() {
                changes.extend(chain.make());
            }
        }
        changes.extend(stale.iter().map(delete));
        let elements = plan::elements(record).into_iter().filter(|element| !left.contains(element));
        changes.extend(elements.map(create));
        changes.extend(shared([record]));
        let Err(refusals) = self.nft.try_commit(&changes)? else { return Ok(None) };
        if refusals.iter().any(Refusal::not_found) {
            return Ok(Some(Obstacle::Missing));
        }
        let own = plan::element_comment(&record.attachment());
        let (mut held, mut stale) = (Vec::new(), Vec::new());
        for refusal in &refusals {
            let refused = refusal.change.and_then(|index| changes.get(index));
            let (Some(Change::CreateElement { element, .. }), true) = (refused, refusal.exists()) else {
                return Err(explain(&changes, &refusals).into());
            };
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == own => stale.push(element.clone()),
                Some(there) => held.push((element.clone(), there.comment)),
                // It has gone meanwhile.
                None => {}
            }
        }
        Ok(Some(if held.is_empty() { Obstacle::Stale(stale) } else { Obstacle::Held(held) }))
    }

    /// Takes from dead holders what is in our way, with all that they have. A live one is an error, unless it
    /// is the same container on another network: what is left to that is returned.
    async fn evict(
        &self,
        node: &Conn,
        record: &Record,
        held: &[(Element, String)],
    ) -> Result<Vec<Element>, CniError> {
        let _lock = RecordLock::exclusive()?;
        let mut left = Vec::new();
        for (element, comment) in held {
            // It may have gone, or gone to another, before we had the lock.
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == *comment => {}
                _ => continue,
            }
            let Some(veth) = plan::veth_of(comment) else {
                let why = format!("{}: in table {TABLE} already, and not by us", plan::what(element));
                return Err(CniError::new(code::PORT_TAKEN, why));
            };
            if link::by_name(node, veth).await?.is_some_and(|link| is_attachment(&link)) {
                if self.leave_to_sibling(record, element, comment)? {
                    left.push(element.clone());
                    continue;
                }
                return Err(CniError::new(
                    code::PORT_TAKEN,
                    format!("{}: held by {}", plan::what(element), plan::describe(comment)),
                ));
            }
            log::warn!("{}: taken from {}, which is gone", plan::what(element), plan::describe(comment));
            if let Some(dead) = self.records.read(veth) {
                self.take_out(node, &dead).await?;
            }
            // Whoever detaches it from now on must not find keys that are another's by then.
            self.records.remove(veth)?;
            self.sweep(|comment| plan::veth_of(comment) == Some(veth))?;
        }
        Ok(left)
    }
}

/// The node's address from which it asks for the pod's ports at 127.0.0.1: that from which it talks to the
/// pod; none where no such port leads there, or the node has no way.
pub(super) async fn localhost(node: &Conn, record: &Record) -> Result<Option<Ipv4Addr>, NetError> {
    let Some(pod) = plan::target_of_localhost(record) else { return Ok(None) };
    if let Some(source) = record.sources.iter().copied().find_map(as_ipv4) {
        return Ok(Some(source));
    }
    Ok(route::lookup(node, pod).await?.and_then(|(_, source)| as_ipv4(source)))
}

pub(super) fn create(element: Element) -> Change {
    Change::CreateElement { table: TABLE, element }
}
