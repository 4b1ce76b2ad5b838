//! NAT mode at work: puts an attachment's elements into the node's packet filter and takes them out. `plan::nat` says what they are.
//!
//! The kernel is who decides: elements are created, not added, so that a port that somebody has is refused, and a chain that something
//! leads to cannot be deleted. Each attachment's record is written before its elements and removed after them
//! (docs/architecture.md has the order of steps, and what a kill leaves).

mod flush;
mod forward;
mod repair;

use cni_conf::cni::error::{CniError, code};

use crate::lock::RecordLock;
use crate::net::nft::{Nft, Refusal, explain};
use crate::net::sysctl::{InterfaceSysctls, enable_forwarding};
use crate::net::{Conn, link};
use crate::nft::{Change, Element};
use crate::ownership::is_attachment;
use crate::plan::nat::frame::{self, TABLE};
use crate::plan::nat::{self as plan, SUBNET_CHAINS};
use crate::record::{Record, Records};

/// How often an ADD tries again after somebody else has changed what it found: the first pod of a network or a node, or one that took
/// a dead holder's port, was quicker.
const ATTEMPTS: usize = 20;

/// The node's packet filter and the records of what is in it.
#[derive(Debug)]
pub struct Nat {
    nft: Nft,
    records: Records,
}

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
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Nat, CniError> {
        Ok(Nat { nft: Nft::open()?, records: Records::of_this_node()? })
    }

    /// Fails, naming the module, where the kernel lacks a part. Changes nothing. A node that has our table has all parts.
    pub fn probe(&self) -> Result<(), CniError> {
        if self.nft.has_table(TABLE)? {
            return Ok(());
        }
        let mut changes = frame::frame();
        changes.extend(plan::chains(&Record::example()).iter().flat_map(plan::SubnetChain::make));
        Ok(self.nft.check(&changes)?)
    }

    /// Writes the record and puts the elements in. A port that a live attachment has is an error that names it.
    pub async fn install(&self, node: &Conn, record: &Record) -> Result<(), CniError> {
        for mapping in &record.ports {
            if plan::targets(record, mapping).is_empty() {
                return Err(CniError::config(format!(
                    "runtimeConfig.portMappings: host port {mapping}: the pod has no address of that family"
                )));
            }
        }
        self.put_in(node, record).await?;
        for ipv6 in [false, true] {
            if record.addresses.iter().any(|net| net.addr().is_ipv6() == ipv6) {
                enable_forwarding(ipv6)?;
            }
        }
        if let Some(device) = plan::localnet_device(record) {
            self.set_localnet(device, true)?;
        }
        self.let_forward(record)?;
        self.forget_udp_of_the_node(node, record).await;
        Ok(())
    }

    async fn put_in(&self, node: &Conn, record: &Record) -> Result<(), CniError> {
        let veth = record.attachment().host_interface();
        let (mut with_chains, mut stale) = (false, Vec::new());
        for _ in 0..ATTEMPTS {
            let lock = RecordLock::shared()?;
            self.records.write(record)?;
            let Some(obstacle) = self.try_put_in(record, with_chains, &stale)? else { return Ok(()) };
            drop(lock);
            match obstacle {
                Obstacle::Missing => {
                    self.rebuild(node, Some(&veth), None).await?;
                    with_chains = true;
                }
                Obstacle::Held(held) => self.evict(node, &held).await?,
                Obstacle::Stale(elements) => stale = elements,
            }
        }
        let why = "the packet filter changes all the time: not put in after 20 attempts";
        Err(CniError::new(code::TRY_AGAIN_LATER, why))
    }

    fn try_put_in(
        &self,
        record: &Record,
        with_chains: bool,
        stale: &[Element],
    ) -> Result<Option<Obstacle>, CniError> {
        let mut changes = Vec::new();
        if with_chains {
            changes.extend(plan::chains(record).iter().flat_map(plan::SubnetChain::make));
        }
        changes.extend(stale.iter().map(delete));
        changes.extend(plan::elements(record).into_iter().map(create));
        changes.extend(
            plan::device_elements(record)
                .into_iter()
                .map(|element| Change::AddElement { table: TABLE, element }),
        );
        let Err(refusals) = self.nft.try_commit(&changes)? else { return Ok(None) };
        if refusals.iter().any(Refusal::not_found) {
            return Ok(Some(Obstacle::Missing));
        }
        let own = plan::owner(&record.attachment());
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

    /// Takes from dead holders what is in our way, with all that they have. A live one is an error.
    async fn evict(&self, node: &Conn, held: &[(Element, String)]) -> Result<(), CniError> {
        let _lock = RecordLock::alone()?;
        for (element, comment) in held {
            // It may have gone, or gone to another, before we had the lock.
            match self.nft.element(TABLE, element.set, &element.key)? {
                Some(there) if there.comment == *comment => {}
                _ => continue,
            }
            let veth = plan::veth_of(comment).unwrap_or_default();
            if link::by_name(node, veth).await?.is_some_and(|link| is_attachment(&link)) {
                return Err(CniError::new(
                    code::PORT_TAKEN,
                    format!("{}: held by {}", plan::what(element), plan::describe(comment)),
                ));
            }
            log::warn!("{}: taken from {}, which is gone", plan::what(element), plan::describe(comment));
            // Whoever detaches it from now on must not find keys that are another's by then.
            self.records.remove(veth)?;
            self.sweep(|comment| plan::veth_of(comment) == Some(veth))?;
        }
        Ok(())
    }

    /// Takes an attachment's elements out and removes its record. What is not there is no error. Without a record they are looked
    /// for by their comments.
    pub async fn remove(&self, node: &Conn, veth: &str) -> Result<(), CniError> {
        let lock = RecordLock::shared()?;
        let record = self.records.read(veth);
        let all_there = match &record {
            Some(record) => self.take_out(record)?,
            None => self.sweep(|comment| plan::veth_of(comment) == Some(veth)).map(|()| true)?,
        };
        self.records.remove(veth)?;
        drop(lock);
        if let Some(record) = &record {
            self.forget_udp_of_the_pod(record);
        }
        if !all_there {
            self.rebuild(node, None, record.as_ref()).await?;
        }
        self.end_with_the_last(record.as_ref())
    }

    /// True if all elements were there to be taken out.
    fn take_out(&self, record: &Record) -> Result<bool, CniError> {
        let deletions = plan::elements(record).iter().map(delete).collect();
        let all_there = self.commit_what_can(deletions, Refusal::not_found)?;
        let chains = plan::chains(record);
        self.delete_unused(chains.iter().map(|chain| chain.name.as_str()))?;
        Ok(all_there)
    }

    /// Removes what belongs to no attachment that is wanted: of this network, by the names of their veths.
    pub async fn collect(&self, node: &Conn, network: &str, wanted: &[String]) -> Result<(), CniError> {
        let stale = |veth: &str| !wanted.iter().any(|name| name == veth);
        for (veth, record) in self.records.all() {
            if record.network == network && stale(&veth) {
                self.remove(node, &veth).await?;
            }
        }
        let lock = RecordLock::alone()?;
        self.sweep(|comment| {
            plan::is_of_network(comment, network) && plan::veth_of(comment).is_some_and(stale)
        })?;
        drop(lock);
        self.end_with_the_last(None)
    }

    /// Removes the elements whose comment is like that, and chains that nothing leads to any more.
    fn sweep(&self, is_meant: impl Fn(&str) -> bool) -> Result<(), CniError> {
        let mut deletions = Vec::new();
        for set in frame::MAPS {
            let elements = self.nft.elements(TABLE, set)?.into_iter();
            deletions.extend(
                elements.filter(|element| is_meant(&element.comment)).map(|element| Change::DeleteElement {
                    table: TABLE,
                    set,
                    key: element.key,
                }),
            );
        }
        if deletions.is_empty() {
            return Ok(());
        }
        self.commit_what_can(deletions, Refusal::not_found)?;
        let chains = self.nft.chains(TABLE)?;
        let of_subnets = |name: &&str| SUBNET_CHAINS.iter().any(|prefix| name.starts_with(prefix));
        self.delete_unused(chains.iter().map(String::as_str).filter(of_subnets))
    }

    /// Deletes those of the chains that nothing leads to. The kernel does not let go of others.
    fn delete_unused<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), CniError> {
        for name in names {
            let deletion = Change::DeleteChain { table: TABLE, name: name.to_owned() };
            self.commit_what_can(vec![deletion], |refusal| refusal.not_found() || refusal.exists())?;
        }
        Ok(())
    }

    /// Commits changes without those that are refused for a reason that does not matter. False if there were any.
    fn commit_what_can(
        &self,
        changes: Vec<Change>,
        does_not_matter: impl Fn(&Refusal) -> bool,
    ) -> Result<bool, CniError> {
        Ok(self.nft.commit_what_can(changes, does_not_matter)?)
    }

    /// Takes the table away when the last attachment has gone; what leads into it from elsewhere goes first.
    fn end_with_the_last(&self, last: Option<&Record>) -> Result<(), CniError> {
        if !self.records.is_empty() {
            return Ok(());
        }
        let _lock = RecordLock::alone()?;
        if !self.records.end() {
            return Ok(());
        }
        let switched_on = self.nft.elements(TABLE, frame::LOCALNET)?.into_iter();
        let mut devices: Vec<String> =
            switched_on.map(|element| crate::nft::interface_name(&element.key)).collect();
        // After a flush the set is empty.
        devices.extend(last.and_then(plan::localnet_device).map(str::to_owned));
        for device in devices {
            self.set_localnet(&device, false)?;
        }
        let mut changes = self.forward_deletions()?;
        changes.push(Change::DeleteTable(TABLE));
        self.commit_what_can(changes, Refusal::not_found).map(drop)
    }

    /// Whether a device takes and gives packets of 127.0.0.0/8. One that is gone does not.
    fn set_localnet(&self, device: &str, on: bool) -> Result<(), CniError> {
        InterfaceSysctls::ipv4().write(device, "route_localnet", if on { "1" } else { "0" })?;
        Ok(())
    }
}

/// Undoes NAT of an attachment whose veth may be gone, where it has any: by its record, or, if the configuration `may_have` some,
/// by the comments of the elements.
pub async fn detach(node: &Conn, veth: &str, may_have: bool) -> Result<(), CniError> {
    let records = Records::of_this_node()?;
    if may_have || records.has(veth) { Nat::open()?.remove(node, veth).await } else { Ok(()) }
}

/// The same for every attachment of a network but those whose veths are `wanted`.
pub async fn collect(node: &Conn, network: &str, wanted: &[String], may_have: bool) -> Result<(), CniError> {
    let records = Records::of_this_node()?;
    if may_have || !records.is_empty() { Nat::open()?.collect(node, network, wanted).await } else { Ok(()) }
}

/// For CHECK: what of an attachment's NAT is no longer as ADD left it. `expected`: by its configuration it has some.
pub fn difference(veth: &str, expected: bool) -> Result<Option<String>, CniError> {
    let records = Records::of_this_node()?;
    if expected || records.has(veth) { Nat::open()?.difference(veth, expected) } else { Ok(None) }
}

fn create(element: Element) -> Change {
    Change::CreateElement { table: TABLE, element }
}

fn delete(element: &Element) -> Change {
    Change::DeleteElement { table: TABLE, set: element.set, key: element.key.clone() }
}
