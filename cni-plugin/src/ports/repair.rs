//! Restores ports in their bridges. A call compares the names of the records with those of the bridge's
//! ports, which are two short folders to read. `vlan-bridgectl repair` checks each port's settings too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use kernel::link::Link;
use kernel::port::Memberships;
use kernel::{Conn, NetError, fdb, link, port};

use super::attached::{PortRecord, by_bridge};
use super::restoration::Restoration;
use super::{flags, is_limited, set_up};
use crate::ownership::{Attachment, Progress, attachment_of};
use crate::plan::{Step, vlan};
use crate::record::Records;
use crate::repairs::{Repairs, Subject};
use crate::{apply, gateway, requested_mac, trunk};

/// Restores ports of any network that are in no bridge any more. Errors are logged and do not fail the
/// call. `seen` is a bridge that the caller has just looked up.
pub async fn repair_missing(node: &Conn, seen: Option<&Link>) {
    let mut repairs = Repairs::of_everything();
    if let Err(e) = restore(node, false, seen, &mut repairs).await {
        log::error!("could not restore the ports of other pods: {e}");
    }
    repairs.log_failures();
}

/// The same with each port's settings, the bridge and its uplink. Returns the node's links, unless it has
/// changed some or has not looked at them.
pub async fn repair(node: &Conn, repairs: &mut Repairs<'_>) -> Result<Option<Vec<Link>>, CniError> {
    restore(node, true, None, repairs).await
}

async fn restore(
    node: &Conn,
    all: bool,
    seen: Option<&Link>,
    repairs: &mut Repairs<'_>,
) -> Result<Option<Vec<Link>>, CniError> {
    let killed = Restoration::of_killed()?;
    let is_repeated = killed.is_some();
    let all = all || is_repeated;
    let mut pass = Pass { known: Seen { all, ..Seen::default() }, restoration: killed };
    for (name, records) in by_bridge()? {
        let recorded = BTreeSet::from_iter(records.names());
        let bridge = match seen.filter(|seen| seen.name == name) {
            Some(seen) => Some(seen.clone()),
            None => link::by_name(node, &name).await?,
        };
        let ports = match bridge.as_ref().filter(|_| !all) {
            Some(bridge) => port::names(node, bridge).await?,
            None => BTreeSet::new(),
        };
        let meant: Vec<&String> = recorded.iter().filter(|veth| all || !ports.contains(*veth)).collect();
        if meant.is_empty() {
            continue;
        }
        if all || bridge.is_none() {
            let bridge = BridgeOfRecords { name: &name, records: &records };
            let outcome = bridge.restore(node, all, &recorded, &mut pass, repairs).await;
            repairs.note(Subject::Bridge(name.clone()), outcome);
        }
        let bridge = link::by_name(node, &name).await?;
        let ports = PortsOfRecords { node, bridge: bridge.as_ref(), records: &records };
        ports.restore(&meant, &mut pass, repairs).await?;
    }
    match pass.restoration {
        Some(restoration) => restoration.end(is_repeated && repairs.left.is_empty()).map(|()| None),
        None => Ok(pass.known.links.map(|links| links.into_values().collect())),
    }
}

/// A pass over the bridges. It compares without a lock until something differs.
struct Pass {
    known: Seen,
    restoration: Option<Restoration>,
}

impl Pass {
    /// Takes the lock, unless the pass has it.
    fn begin_restoration(&mut self) -> Result<(), CniError> {
        if self.restoration.is_none() {
            self.restoration = Some(Restoration::begin()?);
        }
        Ok(())
    }
}

/// What a pass has seen of all ports, listed when the first port needs it. The lists are long, so a pass
/// makes each once. Under the lock, what was seen before does not count.
#[derive(Default)]
struct Seen {
    /// The pass looks at all ports: one list of links is cheaper than a look for each.
    all: bool,
    links: Option<BTreeMap<String, Link>>,
    vlans: Option<Vec<Memberships>>,
}

impl Seen {
    async fn link(&mut self, node: &Conn, name: &str) -> Result<Option<Link>, NetError> {
        if !self.all {
            return link::by_name(node, name).await;
        }
        if self.links.is_none() {
            let links = link::all(node).await?.into_iter();
            self.links = Some(links.map(|link| (link.name.clone(), link)).collect());
        }
        Ok(self.links.as_ref().and_then(|links| links.get(name)).cloned())
    }

    async fn vlans(&mut self, node: &Conn) -> Result<&[Memberships], NetError> {
        if self.vlans.is_none() {
            self.vlans = Some(port::vlans(node).await?);
        }
        Ok(self.vlans.as_deref().unwrap_or_default())
    }
}

/// A bridge that has records.
struct BridgeOfRecords<'a> {
    name: &'a str,
    records: &'a Records<PortRecord>,
}

impl BridgeOfRecords<'_> {
    /// Restores the bridge and its uplink as an ADD of each of the networks would make them.
    async fn restore(
        &self,
        node: &Conn,
        all: bool,
        recorded: &BTreeSet<String>,
        pass: &mut Pass,
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        let mut seen = BTreeSet::new();
        for veth in recorded {
            // One live attachment of each network is enough.
            let Some(host) = pass.known.link(node, veth).await? else { continue };
            if attachment_of(&host).is_some_and(|attachment| seen.contains(attachment.network)) {
                continue;
            }
            let Some(attached) =
                self.records.read(veth).filter(|attached| !seen.contains(&attached.request.name))
            else {
                continue;
            };
            let network = attached.network()?;
            // If the uplink's port was removed too, that was intended: something else may use the VLAN by
            // now.
            if let Some(uplink) = network.uplink.as_ref().filter(|_| !all)
                && link::by_name(node, uplink.port_name()).await?.is_none_or(|port| port.master.is_some())
            {
                continue;
            }
            self.restore_for(node, &attached, network, &host, pass, repairs).await?;
            seen.insert(attached.request.name.clone());
        }
        Ok(())
    }

    async fn restore_for(
        &self,
        node: &Conn,
        attached: &PortRecord,
        network: &Network,
        host: &Link,
        pass: &mut Pass,
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        let subject = Subject::Bridge(self.name.to_owned());
        let mut missing = apply::missing(node, network).await?;
        if link::by_name(node, self.name).await?.is_some() {
            missing.extend(trunk::missing(node, network).await?);
        }
        let mut missing: Vec<String> = missing.iter().map(Step::to_string).collect();
        missing.extend(gateway::lost(node, network, &attached.result).await?.map(|lost| lost.to_string()));
        if missing.is_empty() || !repairs.permits(&subject, &missing) {
            return Ok(());
        }
        pass.begin_restoration()?;
        let mut steps = apply::ensure_uplink_and_report(node, network).await?;
        steps.extend(trunk::join_and_report(node, network, host).await?.1);
        repairs.restored(&subject, steps.iter().map(Step::to_string).collect());
        if let Some(lost) = gateway::lost(node, network, &attached.result).await?
            && let Some(bridge) = link::by_name(node, self.name).await?
        {
            let attachment = Attachment::of(&attached.request);
            gateway::install(node, network, &attachment, &bridge, &lost.device, &attached.result).await?;
            repairs.restored(&subject, vec![lost.to_string()]);
        }
        Ok(())
    }
}

/// The ports that belong to a bridge.
struct PortsOfRecords<'a> {
    node: &'a Conn,
    /// None if it is gone.
    bridge: Option<&'a Link>,
    records: &'a Records<PortRecord>,
}

/// What is to be done for a port that is not as ADD left it.
enum Lacking<'a> {
    /// The pod died without a DEL, and its DEL does not need the record.
    Dead,
    /// The port differs.
    Differs(Box<Different<'a>>),
}

/// A port that is not as ADD left it.
struct Different<'a> {
    bridge: &'a Link,
    host: Link,
    attached: Arc<PortRecord>,
    what: String,
}

impl<'a> PortsOfRecords<'a> {
    /// Restores ports and their settings. Most passes find no difference, and then none takes the lock, for
    /// which ADD and DEL would wait.
    async fn restore(
        &self,
        meant: &[&String],
        pass: &mut Pass,
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        let mut different = Vec::new();
        for veth in meant {
            match self.find(veth, &mut pass.known).await {
                Ok(None) => {}
                Ok(Some(_)) => different.push(veth),
                Err(e) => repairs.note(Subject::Port((*veth).clone()), Err(e)),
            }
        }
        if different.is_empty() {
            return Ok(());
        }
        pass.begin_restoration()?;
        // Another call may have restored them, or may have removed their pods.
        let mut known = Seen::default();
        for veth in different {
            let outcome = self.restore_one(veth, &mut known, repairs).await;
            repairs.note(Subject::Port((*veth).clone()), outcome);
        }
        Ok(())
    }

    async fn restore_one(
        &self,
        veth: &str,
        known: &mut Seen,
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        let Different { bridge, host, attached, what } = match self.find(veth, known).await? {
            None => return Ok(()),
            Some(Lacking::Dead) => return self.records.remove(veth),
            Some(Lacking::Differs(different)) => *different,
        };
        let (subject, what) = (Subject::Port(veth.to_owned()), vec![what]);
        if repairs.permits(&subject, &what) {
            attached.remove_foreign_entries(self.node, bridge, &host).await?;
            attached.attach(self.node, bridge, &host).await?;
            repairs.restored(&subject, what);
        }
        Ok(())
    }

    /// Compares one port with what ADD made. Takes no lock.
    async fn find(&self, veth: &str, known: &mut Seen) -> Result<Option<Lacking<'a>>, CniError> {
        let Some(attached) = self.records.read(veth) else { return Ok(None) };
        let Some(host) = known.link(self.node, veth).await? else {
            // A live pod without its veth is cut off: doctor reports it.
            return Ok((!attached.has_pod()).then_some(Lacking::Dead));
        };
        let Some(bridge) = self.bridge else { return Ok(None) };
        let attachment = Attachment::of(&attached.request);
        if attachment.progress(&host) != Progress::Ready {
            return Ok(None);
        }
        let lacks = match host.master {
            None => Some(format!("it was in no bridge, and belongs to {}", bridge.name)),
            Some(master) if master == bridge.index => {
                attached.difference(self.node, bridge, &host, known).await?
            }
            // Another program added it to that bridge.
            Some(_) => None,
        };
        let Some(lacks) = lacks else { return Ok(None) };
        let what = format!("{} of container {}: {lacks}", attachment.ifname, attachment.container_id);
        Ok(Some(Lacking::Differs(Box::new(Different { bridge, host, attached, what }))))
    }
}

impl PortRecord {
    /// As in ADD, the port stays down until its restrictions are in place.
    async fn attach(&self, node: &Conn, bridge: &Link, host: &Link) -> Result<(), CniError> {
        let network = self.network()?;
        let change = async |change: link::Change| {
            link::change(node, host.index, &change, || format!("change interface {}", host.name)).await
        };
        if is_limited(network) {
            change(link::Change { up: Some(false), ..Default::default() }).await?;
        }
        if host.master.is_none() {
            change(link::Change { master: Some(bridge.index), ..Default::default() }).await?;
        }
        change(link::Change { port: Some(flags(network)), ..Default::default() }).await?;
        set_up(node, network, bridge, host, self.mac).await?;
        change(link::Change { up: Some(true), ..Default::default() }).await?;
        let side = trunk::join(node, network, host).await?;
        if network.is_gateway {
            let device = side.as_ref().unwrap_or(bridge);
            gateway::install(node, network, &Attachment::of(&self.request), bridge, device, &self.result)
                .await?;
        }
        Ok(())
    }

    /// Describes which of a port's settings differs from what ADD set.
    async fn difference(
        &self,
        node: &Conn,
        bridge: &Link,
        host: &Link,
        known: &mut Seen,
    ) -> Result<Option<String>, CniError> {
        let network = self.network()?;
        if !host.up {
            return Ok(Some("it was down".into()));
        }
        if host.port.unwrap_or_default() != flags(network) {
            return Ok(Some("its flags had changed".into()));
        }
        if let Some(wanted) = &network.port_vlans {
            let seen = known.vlans(node).await?;
            let lost =
                vlan::of_port(wanted).into_iter().find(|of| !vlan::takes_part(seen, host.index, of.vid));
            if let Some(lost) = lost {
                return Ok(Some(format!("it was not in VLAN {}", lost.vid)));
            }
        }
        for vid in requested_mac::vids(network, bridge).into_iter().filter(|_| network.mac_is_pinned()) {
            match fdb::entry(node, bridge.index, self.mac, vid).await? {
                Some(entry)
                    if entry.port == host.index && entry.kind == fdb::Kind::Static && entry.sticky => {}
                Some(entry) if is_foreign(&entry, host) => {
                    return Ok(Some(format!("{} was behind another port", self.mac)));
                }
                _ => return Ok(Some(format!("{} was not pinned to it", self.mac))),
            }
        }
        Ok(None)
    }

    /// Removes entries of the pod's MAC behind other ports. No other attachment has a MAC that was requested.
    async fn remove_foreign_entries(&self, node: &Conn, bridge: &Link, host: &Link) -> Result<(), CniError> {
        let network = self.network()?;
        for vid in requested_mac::vids(network, bridge).into_iter().filter(|_| network.mac_is_pinned()) {
            if let Some(entry) = fdb::entry(node, bridge.index, self.mac, vid).await?
                && is_foreign(&entry, host)
            {
                fdb::remove(node, entry.port, self.mac).await?;
            }
        }
        Ok(())
    }
}

/// Whether the entry leads to another port than the pod's, and is not the kernel's own.
fn is_foreign(entry: &fdb::FdbEntry, host: &Link) -> bool {
    entry.port != host.index && entry.kind != fdb::Kind::Local
}
