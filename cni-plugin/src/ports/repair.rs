//! Restores ports in their bridges. A call compares the names of the records with those of the bridge's
//! ports, which are two short folders to read. `vlan-bridgectl repair` checks each port's settings too.

use std::collections::BTreeSet;

use cni_conf::cni::error::CniError;
use kernel::link::Link;
use kernel::{Conn, NetError, fdb, link, port};

use super::attached::{PortRecord, by_bridge};
use super::{flags, is_limited, set_up};
use crate::lock::RecordLock;
use crate::ownership::{Attachment, Progress};
use crate::plan::vlan;
use crate::record::Records;
use crate::{apply, gateway, requested_mac, trunk};

/// Restores ports of any network that are in no bridge any more. Errors are logged and do not fail the
/// call. `seen` is a bridge that the caller has just looked up.
pub async fn repair_missing(node: &Conn, seen: Option<&Link>) {
    match restore(node, false, seen).await {
        Ok((_, failed)) => failed.iter().for_each(|e| log::error!("{e}")),
        Err(e) => log::error!("could not restore the ports of other pods: {e}"),
    }
}

/// The same with each port's settings, the bridge and its uplink. Returns descriptions of the repairs, and
/// the errors.
pub async fn repair(node: &Conn) -> Result<(Vec<String>, Vec<CniError>), CniError> {
    restore(node, true, None).await
}

async fn restore(
    node: &Conn,
    all: bool,
    seen: Option<&Link>,
) -> Result<(Vec<String>, Vec<CniError>), CniError> {
    let (mut repaired, mut failed) = (Vec::new(), Vec::new());
    let not_restored =
        |what: &str, e: CniError| CniError { msg: format!("{what} was not restored: {}", e.msg), ..e };
    for (name, records) in by_bridge()? {
        let recorded = BTreeSet::from_iter(records.names());
        let bridge = match seen.filter(|seen| seen.name == name) {
            Some(seen) => Some(seen.clone()),
            None => link::by_name(node, &name).await?,
        };
        let ports = match &bridge {
            Some(bridge) => port::names(node, bridge).await?,
            None => BTreeSet::new(),
        };
        let meant: Vec<&String> = recorded.iter().filter(|veth| all || !ports.contains(*veth)).collect();
        if meant.is_empty() {
            continue;
        }
        if all || bridge.is_none() {
            match restore_bridge(node, &name, bridge.is_none(), all, &records, &recorded).await {
                Ok(done) => repaired.extend(done),
                Err(e) => failed.push(not_restored(&format!("bridge {name}"), e)),
            }
        }
        let _lock = RecordLock::exclusive()?;
        for veth in meant {
            match reattach(node, &name, &records, veth).await {
                Ok(what) => repaired.extend(what),
                Err(e) => failed.push(not_restored(&format!("port {veth} of bridge {name}"), e)),
            }
        }
    }
    Ok((repaired, failed))
}

/// Restores the bridge and its uplink as an ADD of each of the networks would make them.
async fn restore_bridge(
    node: &Conn,
    name: &str,
    is_gone: bool,
    all: bool,
    records: &Records<PortRecord>,
    recorded: &BTreeSet<String>,
) -> Result<Vec<String>, CniError> {
    let (mut seen, mut done) = (BTreeSet::new(), Vec::new());
    for veth in recorded {
        // One live attachment of each network is enough.
        let Some(attached) = records.read(veth) else { continue };
        if seen.contains(&attached.request.name) {
            continue;
        }
        let Some(host) = link::by_name(node, veth).await? else { continue };
        let network = attached.network()?;
        // If the uplink's port was removed too, that was intended: something else may use the VLAN by now.
        if let Some(uplink) = network.uplink.as_ref().filter(|_| !all)
            && link::by_name(node, uplink.port_name()).await?.is_none_or(|port| port.master.is_some())
        {
            continue;
        }
        let mut steps = apply::ensure_uplink_and_report(node, &network).await?;
        if is_gone && seen.is_empty() {
            attached.restore_mac(node, name).await?;
        }
        steps.extend(trunk::join_and_report(node, &network, &host).await?.1);
        done.extend(steps.into_iter().map(|step| format!("bridge {name}: {step}")));
        seen.insert(attached.request.name.clone());
    }
    done.iter().for_each(|what| log::warn!("{what}"));
    Ok(done)
}

/// Restores one port or its settings, and returns a description.
async fn reattach(
    node: &Conn,
    bridge: &str,
    records: &Records<PortRecord>,
    veth: &str,
) -> Result<Option<String>, CniError> {
    let Some(attached) = records.read(veth) else { return Ok(None) };
    let Some(host) = link::by_name(node, veth).await? else {
        // The pod died without a DEL, and its DEL does not need this record. A live pod without its veth is
        // cut off: doctor reports it.
        return if attached.has_pod() { Ok(None) } else { records.remove(veth).map(|()| None) };
    };
    let Some(bridge) = link::by_name(node, bridge).await? else { return Ok(None) };
    let attachment = Attachment::of(&attached.request);
    if attachment.progress(&host) != Progress::Ready {
        return Ok(None);
    }
    let pod = format!("{} of container {}", attachment.ifname, attachment.container_id);
    match host.master {
        None => {
            attached.attach(node, &bridge, &host).await?;
            let what = format!("{veth} ({pod}) was in no bridge: restored as a port of {}", bridge.name);
            log::warn!("{what}");
            Ok(Some(what))
        }
        Some(master) if master == bridge.index => {
            let Some(lacks) = attached.difference(node, &bridge, &host).await? else { return Ok(None) };
            attached.attach(node, &bridge, &host).await?;
            let what = format!("port {veth} ({pod}): {lacks}: restored");
            log::warn!("{what}");
            Ok(Some(what))
        }
        // Another program added it to that bridge.
        Some(_) => Ok(None),
    }
}

impl PortRecord {
    /// Restores the MAC of a bridge that was made again: pods have it in their neighbour entries.
    async fn restore_mac(&self, node: &Conn, bridge: &str) -> Result<(), NetError> {
        let (Some(mac), Some(now)) = (self.bridge_mac, link::by_name(node, bridge).await?) else {
            return Ok(());
        };
        if now.mac == Some(mac) {
            return Ok(());
        }
        let change = link::Change { mac: Some(mac), ..Default::default() };
        link::change(node, now.index, &change, || format!("ip link set {bridge} address {mac}")).await
    }

    /// As in ADD, the port stays down until its restrictions are in place.
    async fn attach(&self, node: &Conn, bridge: &Link, host: &Link) -> Result<(), CniError> {
        let network = self.network()?;
        let change = async |change: link::Change| {
            link::change(node, host.index, &change, || format!("change interface {}", host.name)).await
        };
        if is_limited(&network) {
            change(link::Change { up: Some(false), ..Default::default() }).await?;
        }
        if host.master.is_none() {
            change(link::Change { master: Some(bridge.index), ..Default::default() }).await?;
        }
        change(link::Change { port: Some(flags(&network)), ..Default::default() }).await?;
        set_up(node, &network, bridge, host, self.mac).await?;
        change(link::Change { up: Some(true), ..Default::default() }).await?;
        let side = trunk::join(node, &network, host).await?;
        if network.is_gateway {
            let device = side.as_ref().unwrap_or(bridge);
            gateway::install(node, &network, &Attachment::of(&self.request), bridge, device, &self.result)
                .await?;
        }
        Ok(())
    }

    /// Describes which of a port's settings differs from what ADD set.
    async fn difference(&self, node: &Conn, bridge: &Link, host: &Link) -> Result<Option<String>, CniError> {
        let network = self.network()?;
        if !host.up {
            return Ok(Some("it was down".into()));
        }
        if host.port.unwrap_or_default() != flags(&network) {
            return Ok(Some("its flags had changed".into()));
        }
        if let Some(wanted) = &network.port_vlans {
            let seen = port::vlans(node).await?;
            let lost =
                vlan::of_port(wanted).into_iter().find(|of| !vlan::takes_part(&seen, host.index, of.vid));
            if let Some(lost) = lost {
                return Ok(Some(format!("it was not in VLAN {}", lost.vid)));
            }
        }
        for vid in requested_mac::vids(&network, bridge).into_iter().filter(|_| network.mac_is_pinned()) {
            match fdb::entry(node, bridge.index, self.mac, vid).await? {
                Some(entry)
                    if entry.port == host.index && entry.kind == fdb::Kind::Static && entry.sticky => {}
                Some(entry) if entry.port != host.index && entry.kind != fdb::Kind::Local => {
                    self.remove_entry(node, entry.port).await?;
                    return Ok(Some(format!("{} was behind another port", self.mac)));
                }
                _ => return Ok(Some(format!("{} was not pinned to it", self.mac))),
            }
        }
        Ok(None)
    }

    /// Removes an entry of the pod's MAC behind another port that is not an attachment's. No other
    /// attachment has a MAC that was requested.
    async fn remove_entry(&self, node: &Conn, port: u32) -> Result<(), NetError> {
        fdb::remove(node, port, self.mac).await
    }
}
