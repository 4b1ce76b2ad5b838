//! Puts ports back into their bridges. A call compares the names of the records with those of the bridge's
//! ports, which is two short folders to read; `vlan-bridgectl repair` looks at each port's settings too.

use std::collections::BTreeSet;
use std::path::Path;

use cni_conf::cni::error::CniError;
use kernel::link::Link;
use kernel::{Conn, NetError, fdb, link, port};

use super::attached::{Attached, folders, names_in, remove};
use super::{flags, is_limited, set_up};
use crate::lock::RecordLock;
use crate::ownership::{Attachment, Progress};
use crate::plan::vlan;
use crate::{apply, gateway, requested_mac, trunk};

/// Puts ports back that are in no bridge any more, of whichever network. The pod that is called for goes on
/// without.
pub async fn repair_missing(node: &Conn) {
    match repair(node, false).await {
        Ok((_, failed)) => failed.iter().for_each(|e| log::error!("{e}")),
        Err(e) => log::error!("other pods' ports were not put back: {e}"),
    }
}

/// The same, returning in words what was put back, and why the rest was not. `all` looks at each port's own
/// settings too, and at the bridge and its uplink.
pub async fn repair(node: &Conn, all: bool) -> Result<(Vec<String>, Vec<CniError>), CniError> {
    let (mut repaired, mut failed) = (Vec::new(), Vec::new());
    let not_put_back =
        |what: &str, e: CniError| CniError { msg: format!("{what} was not put back: {}", e.msg), ..e };
    for (name, folder) in folders()? {
        let recorded = names_in(&folder);
        let bridge = link::by_name(node, &name).await?;
        let ports = match &bridge {
            Some(bridge) => port::names(node, bridge).await?,
            None => BTreeSet::new(),
        };
        let meant: Vec<&String> = recorded.iter().filter(|veth| all || !ports.contains(*veth)).collect();
        if meant.is_empty() {
            continue;
        }
        if all || bridge.is_none() {
            match bring_bridge_back(node, &name, bridge.is_none(), all, &folder, &recorded).await {
                Ok(done) => repaired.extend(done),
                Err(e) => failed.push(not_put_back(&format!("bridge {name}"), e)),
            }
        }
        let _lock = RecordLock::exclusive()?;
        for veth in meant {
            match reattach(node, &name, &folder, veth).await {
                Ok(what) => repaired.extend(what),
                Err(e) => failed.push(not_put_back(&format!("port {veth} of bridge {name}"), e)),
            }
        }
    }
    Ok((repaired, failed))
}

/// Makes the bridge and its uplink what an ADD of each of the networks would make them.
async fn bring_bridge_back(
    node: &Conn,
    name: &str,
    is_gone: bool,
    all: bool,
    folder: &Path,
    recorded: &BTreeSet<String>,
) -> Result<Vec<String>, CniError> {
    let (mut seen, mut done) = (BTreeSet::new(), Vec::new());
    for veth in recorded {
        // One of each network will do, if its pod is there.
        let Some(attached) = Attached::read(folder, veth) else { continue };
        if seen.contains(&attached.request.name) {
            continue;
        }
        let Some(host) = link::by_name(node, veth).await? else { continue };
        let network = attached.network()?;
        // Whoever took the uplink's port away too meant it: somebody else may have the VLAN by now.
        if let Some(uplink) = network.uplink.as_ref().filter(|_| !all)
            && link::by_name(node, uplink.port_name()).await?.is_none_or(|port| port.master.is_some())
        {
            continue;
        }
        let mut steps = apply::ensure_uplink_and_tell(node, &network).await?;
        if is_gone && seen.is_empty() {
            attached.restore_mac(node, name).await?;
        }
        steps.extend(trunk::join_and_tell(node, &network, &host).await?.1);
        done.extend(steps.into_iter().map(|step| format!("bridge {name}: {step}")));
        seen.insert(attached.request.name.clone());
    }
    done.iter().for_each(|what| log::warn!("{what}"));
    Ok(done)
}

/// Puts one port back, or its settings, and says what was done.
async fn reattach(node: &Conn, bridge: &str, folder: &Path, veth: &str) -> Result<Option<String>, CniError> {
    let Some(attached) = Attached::read(folder, veth) else { return Ok(None) };
    let Some(host) = link::by_name(node, veth).await? else {
        // The pod has died without a DEL, which has nothing to ask of this record. One that is there is cut
        // off: doctor names it.
        return if attached.has_pod() { Ok(None) } else { remove(folder, veth).map(|()| None) };
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
            let what = format!("{veth} ({pod}) was in no bridge and is a port of {} again", bridge.name);
            log::warn!("{what}");
            Ok(Some(what))
        }
        Some(master) if master == bridge.index => {
            let Some(lacks) = attached.difference(node, &bridge, &host).await? else { return Ok(None) };
            attached.attach(node, &bridge, &host).await?;
            let what = format!("port {veth} ({pod}): {lacks}, and is as it was");
            log::warn!("{what}");
            Ok(Some(what))
        }
        // Somebody has put it there.
        Some(_) => Ok(None),
    }
}

impl Attached {
    /// A bridge that is made anew has the MAC that pods know it by.
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

    /// As an ADD does it: down until nothing forged can pass.
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

    /// What of a port's settings is not as its ADD left it.
    async fn difference(&self, node: &Conn, bridge: &Link, host: &Link) -> Result<Option<String>, CniError> {
        let network = self.network()?;
        if !host.up {
            return Ok(Some("it was down".into()));
        }
        if host.port.unwrap_or_default() != flags(&network) {
            return Ok(Some("its flags were others".into()));
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

    /// An entry of the pod's MAC behind another port, which is no attachment's: a MAC that was asked for is
    /// nobody else's.
    async fn remove_entry(&self, node: &Conn, port: u32) -> Result<(), NetError> {
        fdb::remove(node, port, self.mac).await
    }
}
