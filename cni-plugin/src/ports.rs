//! Pods' ports of bridges: how they are set up, and how they come back when somebody has taken them out of their bridge, or the bridge away.
//!
//! Each finished attachment has a record, `/run/vlan-bridge/ports/NODE/BRIDGE/VETH`, with the configuration that it was made by. It is written
//! before the attachment's alias says that it is done, and removed before its port is taken out of the bridge. Any ADD, DEL or GC compares
//! the names of the records with those of the bridge's ports, which is two short folders to read.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni_conf::cni::env::Environment;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::cni::result::AddResult;
use cni_conf::cni::version::Version;
use cni_conf::network::Network;
use cni_conf::request::{RESERVED_PREFIX, Request};
use serde_json::{Map, Value, json};

use crate::link::{Link, PortFlags};
use crate::lock::RecordLock;
use crate::net::{Conn, NetError, fdb, link, port};
use crate::ownership::{Attachment, Progress};
use crate::plan::vlan;
use crate::record::{node_folder, put};
use crate::{apply, gateway, requested_mac, trunk};

const KIND: &str = "ports";

/// What a pod's port is, besides a member of its VLANs.
pub fn flags(network: &Network) -> PortFlags {
    PortFlags {
        // What a pod sends to its own host port or service is turned back by the node, and with br_netfilter within the bridge.
        hairpin: network.hairpin
            || !network.ports.is_empty()
            || !network.services().is_empty()
            || (network.is_gateway || network.masquerade) && !network.promisc,
        isolated: network.isolated,
        locked: network.mac_spoof_check,
    }
}

/// Whether frames of the pod's may pass only after more than its port has been made.
pub fn is_limited(network: &Network) -> bool {
    network.guard.is_some() || network.port_vlans.is_some() || network.mac_spoof_check
}

/// Puts the port into its VLANs and pins the pod's MAC to it. Its flags come first.
pub async fn set_up(
    node: &Conn,
    network: &Network,
    bridge: &Link,
    host: &Link,
    mac: MacAddr,
) -> Result<(), CniError> {
    if let Some(wanted) = &network.port_vlans {
        let member = port::Member::Port(host.index);
        if let Some(default) = vlan::default_to_leave(network, bridge) {
            port::leave(node, member, &[default]).await?;
        }
        port::join(node, member, &vlan::of_port(wanted)).await?;
    }
    if network.mac_is_pinned() { pin(node, network, bridge, host, mac).await } else { Ok(()) }
}

/// So that the bridge does not forget a silent pod and flood what is for it, and no frame from elsewhere moves it. With `macspoofchk` the
/// port is locked: only what is pinned to it is let in, in each of its VLANs.
async fn pin(
    node: &Conn,
    network: &Network,
    bridge: &Link,
    host: &Link,
    mac: MacAddr,
) -> Result<(), CniError> {
    if network.mac_spoof_check {
        let port = link::by_index(node, host.index).await?;
        if !port.and_then(|link| link.port).is_some_and(|flags| flags.locked) {
            return Err(CniError::new(
                code::UNSUPPORTED_FIELD,
                "macspoofchk: true needs locked bridge ports, which this kernel lacks: Linux 5.18 or newer",
            ));
        }
    }
    match fdb::pin(node, host.index, mac).await {
        Err(e) if e.exists() => pin_known(node, network, bridge, host, mac).await,
        other => Ok(other?),
    }
}

/// Another port's entry, or the kernel's own, is never replaced. A machine that is still heard behind another port, as a virtual machine that
/// moves here, is not pinned: the bridge learns when it is here.
async fn pin_known(
    node: &Conn,
    network: &Network,
    bridge: &Link,
    host: &Link,
    mac: MacAddr,
) -> Result<(), CniError> {
    for vid in requested_mac::vids(network, bridge) {
        let Some(entry) = fdb::entry(node, bridge.index, mac, vid).await? else { continue };
        if entry.port == host.index {
            continue;
        }
        let port = link::by_index(node, entry.port).await?;
        let holder = requested_mac::behind(port.as_ref(), entry.kind);
        if entry.kind != fdb::Kind::Learned || network.mac_spoof_check {
            return Err(requested_mac::taken(&format!("the pod's MAC {mac}"), &holder));
        }
        log::warn!("{mac} is not pinned to the pod's port yet: it is {holder}");
        return Ok(());
    }
    Ok(fdb::pin_again(node, host.index, mac).await?)
}

/// A finished attachment.
struct Attached {
    request: Request,
    mac: MacAddr,
    /// By which the pod knows a gateway or its node.
    bridge_mac: Option<MacAddr>,
    /// The addresses with their gateways, for a bridge that is one.
    result: AddResult,
}

/// Writes down a finished attachment.
pub fn record(
    request: &Request,
    network: &Network,
    mac: Option<MacAddr>,
    result: &AddResult,
) -> Result<(), CniError> {
    let Some(mac) = mac else { return Ok(()) };
    let veth = Attachment::of(request).host_interface();
    let mut config = request.config.clone();
    config.retain(|key, _| key != "prevResult" && !key.starts_with(RESERVED_PREFIX));
    let ips: Vec<Value> = result
        .ips
        .iter()
        .map(|ip| json!({"address": ip.address.to_string(), "gateway": ip.gateway.map(|gateway| gateway.to_string())}))
        .collect();
    let document = json!({
        "containerID": request.env.container_id, "ifname": request.env.ifname, "mac": mac.to_string(),
        "bridgeMAC": result.interfaces.first().and_then(|bridge| bridge.mac.as_deref()), "config": config, "ips": ips,
    });
    let folder = node_folder(KIND)?.join(&network.bridge);
    put(&folder, &veth, &document).map_err(|e| {
        CniError::new(code::IO_FAILURE, format!("write record {veth} in {}: {e}", folder.display()))
    })
}

/// Removes what is written down of an attachment. Before its port is taken out of the bridge: nobody puts it back from then on.
pub fn forget(veth: &str) -> Result<(), CniError> {
    let folders = folders()?;
    if folders.is_empty() {
        return Ok(());
    }
    let _lock = RecordLock::shared()?;
    for (_, folder) in folders {
        remove(&folder, veth)?;
        // The last one's; not empty is no error.
        let _ = fs::remove_dir(&folder);
    }
    Ok(())
}

fn remove(folder: &Path, veth: &str) -> Result<(), CniError> {
    for name in [veth.to_owned(), format!(".{veth}")] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(CniError::new(
                    code::IO_FAILURE,
                    format!("remove record {}: {e}", path.display()),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes what is written down of all, when no pod is attached any more.
pub fn forget_all() -> Result<(), CniError> {
    let folder = node_folder(KIND)?;
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(CniError::new(code::IO_FAILURE, format!("remove {}: {e}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// The bridges that have records, each with its folder.
fn folders() -> Result<Vec<(String, PathBuf)>, CniError> {
    let folder = node_folder(KIND)?;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    Ok(entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect())
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Puts ports back that are in no bridge any more, of whichever network. The pod that is called for goes on without.
pub async fn mend(node: &Conn) {
    if let Err(e) = repair(node, false).await {
        log::error!("other pods' ports were not put back: {e}");
    }
}

/// The same, returning in words what was put back. `all` looks at each port's own settings too, and at the bridge and its uplink.
pub async fn repair(node: &Conn, all: bool) -> Result<Vec<String>, CniError> {
    let mut repaired = Vec::new();
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
            repaired.extend(bring_bridge_back(node, &name, bridge.is_none(), &folder, &recorded).await?);
        }
        let _lock = RecordLock::alone()?;
        for veth in meant {
            match put_back(node, &name, &folder, veth).await {
                Ok(what) => repaired.extend(what),
                Err(e) => log::error!("{veth} was not put back into {name}: {e}"),
            }
        }
    }
    Ok(repaired)
}

/// Makes the bridge and its uplink what an ADD of each of the networks would make them.
async fn bring_bridge_back(
    node: &Conn,
    name: &str,
    is_gone: bool,
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
        let mut steps = apply::ensure_uplink_and_tell(node, &network).await?;
        if is_gone && seen.is_empty() {
            attached.give_back_mac(node, name).await?;
        }
        steps.extend(trunk::join_and_tell(node, &network, &host).await?.1);
        done.extend(steps.into_iter().map(|step| format!("bridge {name}: {step}")));
        seen.insert(attached.request.name.clone());
    }
    done.iter().for_each(|what| log::warn!("{what}"));
    Ok(done)
}

/// Puts one port back, or its settings, and says what was done.
async fn put_back(node: &Conn, bridge: &str, folder: &Path, veth: &str) -> Result<Option<String>, CniError> {
    let Some(attached) = Attached::read(folder, veth) else { return Ok(None) };
    let Some(host) = link::by_name(node, veth).await? else {
        // The pod has died without a DEL, which has nothing to ask of this record.
        return remove(folder, veth).map(|()| None);
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
    /// None for what is no such record.
    fn read(folder: &Path, veth: &str) -> Option<Attached> {
        let path = folder.join(veth);
        let read = fs::read(&path).map_err(|e| e.to_string()).and_then(|bytes| Attached::parse(&bytes));
        match read {
            Ok(attached) if Attachment::of(&attached.request).host_interface() == veth => Some(attached),
            Ok(_) => None,
            Err(why) => {
                log::warn!("record {} cannot be used: {why}", path.display());
                None
            }
        }
    }

    fn parse(bytes: &[u8]) -> Result<Attached, String> {
        let document: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let text = |key: &str| {
            document
                .get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("{key} is missing"))
        };
        let (container_id, ifname) = (text("containerID")?, text("ifname")?);
        let environment = Environment::parse(|name| match name {
            "CNI_COMMAND" => Some("DEL".into()),
            "CNI_CONTAINERID" => Some(OsString::from(&container_id)),
            "CNI_IFNAME" => Some(OsString::from(&ifname)),
            "CNI_PATH" => Some("/".into()),
            _ => None,
        });
        let config = document.get("config").ok_or("config is missing")?.to_string();
        let request = environment.and_then(|environment| Request::parse(environment, config.into_bytes()));
        let result = json!({"cniVersion": "1.0.0", "ips": document.get("ips").cloned().unwrap_or_default()});
        let result = AddResult::from_json(&result, Version::V1_0_0).map_err(|e| e.msg)?;
        let mac = text("mac")?.parse().map_err(|_| "mac is no MAC".to_owned())?;
        let bridge_mac = text("bridgeMAC").ok().and_then(|mac| mac.parse().ok());
        Ok(Attached { request: request.map_err(|e| e.msg)?, mac, bridge_mac, result })
    }

    fn network(&self) -> Result<Network, CniError> {
        Network::parse(&self.request).map(|(network, _)| network)
    }

    /// A bridge that is made anew has the MAC that pods know it by.
    async fn give_back_mac(&self, node: &Conn, bridge: &str) -> Result<(), NetError> {
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
                Some(entry) if entry.port == host.index && entry.kind == fdb::Kind::Static => {}
                Some(entry) if entry.port != host.index && entry.kind != fdb::Kind::Local => {
                    self.take_entry_back(node, entry.port).await?;
                    return Ok(Some(format!("{} was behind another port", self.mac)));
                }
                _ => return Ok(Some(format!("{} was not pinned to it", self.mac))),
            }
        }
        Ok(None)
    }

    /// An entry of the pod's MAC behind another port, which is no attachment's: a MAC that was asked for is nobody else's.
    async fn take_entry_back(&self, node: &Conn, port: u32) -> Result<(), NetError> {
        fdb::remove(node, port, self.mac).await
    }
}
