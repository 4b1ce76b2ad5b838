//! Keeps the node from routing for the networks of its uplinks. `plan::boundary` defines the rules.
//!
//! Each device has a file, `/run/vlan-bridge/uplinks/NODE/DEVICE`, which contains the name of the bridge's
//! uplink port. It is written before the rule. From these files every call restores the rules of all
//! devices after a firewall restart.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cni_conf::cni::error::{CniError, code};
use cni_conf::network::Network;
use kernel::nft::Change;
use kernel::nft::Nft;
use kernel::{Conn, NetError, link};

use crate::lock::RecordLock;
use crate::plan::boundary::{self as plan, FORWARD, TABLE};
use crate::record::{create_folder, node_folder, remove_file_if_any};
use crate::repairs::{Repairs, Subject};

/// Called before a pod of this network is attached. Makes sure that the node forwards nothing from the
/// network, or forwards again if the configuration now wants that. Restores missing rules.
pub async fn ensure(node: &Conn, network: &Network) -> Result<(), CniError> {
    let devices = Devices::of_this_node()?;
    let closed = if network.allow_direct_routing { Vec::new() } else { plan::devices(network) };
    let opened = devices.opened_by(node, network).await?;
    let is_new = closed.iter().any(|device| !devices.has(device));
    if !is_new && opened.is_empty() {
        repair_and_log();
        return Ok(());
    }
    let _lock = RecordLock::exclusive()?;
    let port = network.uplink.as_ref().map(|uplink| uplink.port_name()).unwrap_or_default();
    closed.iter().try_for_each(|device| devices.write(device, port))?;
    opened.iter().try_for_each(|device| devices.remove(device))?;
    match rebuild(&devices) {
        Err(e) if is_unsupported(&e) => {
            closed.iter().try_for_each(|device| devices.remove(device))?;
            log::warn!(
                "{e}: without it the node forwards packets from bridge {} to its other networks if forwarding is enabled",
                network.bridge
            );
            Ok(())
        }
        other => Ok(other?),
    }
}

/// After a failed ADD: removes the rules of this network's devices that do not exist.
pub async fn remove_absent(node: &Conn, network: &Network) -> Result<(), CniError> {
    let devices = Devices::of_this_node()?;
    let mut absent = Vec::new();
    for device in plan::devices(network).into_iter().filter(|device| devices.has(device)) {
        if link::by_name(node, &device).await?.is_none() {
            absent.push(device);
        }
    }
    if absent.is_empty() {
        return Ok(());
    }
    let _lock = RecordLock::exclusive()?;
    absent.iter().try_for_each(|device| devices.remove(device))?;
    Ok(rebuild(&devices)?)
}

/// Restores rules that a firewall restart removed. Errors are logged and do not fail the call.
pub fn repair_and_log() {
    let mut repairs = Repairs::of_everything();
    let outcome = repair(&mut repairs);
    repairs.note(Subject::Boundary, outcome);
    repairs.log_failures();
}

/// The same.
pub fn repair(repairs: &mut Repairs<'_>) -> Result<(), CniError> {
    let devices = Devices::of_this_node()?;
    let all = devices.all();
    if all.is_empty() || plan::is_whole(&rule_comments(&Nft::open()?)?, &all) {
        return Ok(());
    }
    let lost = vec![format!("rules were missing from table {TABLE}")];
    if repairs.permits(&Subject::Boundary, &lost) {
        let _lock = RecordLock::exclusive()?;
        rebuild(&devices)?;
        repairs.restored(&Subject::Boundary, lost);
    }
    Ok(())
}

/// Rewrites the table for all devices. The rule of a device that is gone matches nothing. The caller holds
/// the exclusive lock.
fn rebuild(devices: &Devices) -> Result<(), NetError> {
    let nft = Nft::open()?;
    let all = devices.all();
    if !all.is_empty() {
        return nft.commit(&plan::table(&all));
    }
    if nft.has_table(TABLE)? { nft.commit(&[Change::DeleteTable(TABLE)]) } else { Ok(()) }
}

/// The devices that have rules.
fn rule_comments(nft: &Nft) -> Result<Vec<String>, NetError> {
    match nft.rules(TABLE, FORWARD) {
        Err(e) if e.not_found() => Ok(Vec::new()),
        other => Ok(other?.into_iter().map(|rule| rule.comment).collect()),
    }
}

/// Whether the kernel does not support such rules.
fn is_unsupported(error: &NetError) -> bool {
    error.unsupported() || error.not_found()
}

/// For CHECK: describes which rule of a network's devices is missing.
pub fn difference(network: &Network) -> Result<Option<String>, CniError> {
    let devices = Devices::of_this_node()?;
    let known: Vec<String> =
        plan::devices(network).into_iter().filter(|device| devices.has(device)).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let there = rule_comments(&Nft::open()?)?;
    Ok(known.into_iter().find(|device| !there.contains(device)).map(|device| {
        format!("the rule of {device} is gone from table {TABLE}: the node may forward packets from there")
    }))
}

/// For doctor: the devices of a network for which the node forwards although the configuration does not ask
/// for it. Without pods, only devices that had some.
pub fn open_devices(network: &Network, has_pods: bool) -> Result<Vec<String>, CniError> {
    let mut devices = plan::devices(network);
    if network.allow_direct_routing || devices.is_empty() {
        return Ok(Vec::new());
    }
    let there: BTreeSet<String> = rule_comments(&Nft::open()?)?.into_iter().collect();
    let known = Devices::of_this_node()?;
    devices.retain(|device| !there.contains(device) && (has_pods || known.has(device)));
    Ok(devices)
}

/// Removes table and files, for uninstall. A kernel without nf_tables has no table.
pub fn remove() -> Result<(), CniError> {
    let devices = Devices::of_this_node()?;
    devices.all().iter().try_for_each(|device| devices.remove(device))?;
    let _ = fs::remove_dir(&devices.folder);
    let Ok(nft) = Nft::open() else { return Ok(()) };
    if nft.has_table(TABLE).unwrap_or(false) {
        nft.commit(&[Change::DeleteTable(TABLE)])?;
    }
    Ok(())
}

/// The files that record which devices have a rule.
struct Devices {
    folder: PathBuf,
}

impl Devices {
    fn of_this_node() -> Result<Devices, CniError> {
        Ok(Devices { folder: node_folder("uplinks")? })
    }

    fn has(&self, device: &str) -> bool {
        self.folder.join(device).symlink_metadata().is_ok()
    }

    fn all(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn write(&self, device: &str, port: &str) -> Result<(), CniError> {
        let path = self.folder.join(device);
        let failed = |e| CniError::new(code::IO_FAILURE, format!("write record {}: {e}", path.display()));
        create_folder(&self.folder).map_err(failed)?;
        fs::write(&path, port).map_err(|e| {
            // On a full disk, an empty file without information may be left.
            let _ = fs::remove_file(&path);
            failed(e)
        })
    }

    fn remove(&self, device: &str) -> Result<(), CniError> {
        let path = self.folder.join(device);
        remove_file_if_any(&path)
            .map_err(|e| CniError::new(code::IO_FAILURE, format!("remove record {}: {e}", path.display())))
    }

    /// The devices whose rule this network removes: its configuration asks for forwarding, or it has no
    /// uplink on a bridge that had one before.
    async fn opened_by(&self, node: &Conn, network: &Network) -> Result<Vec<String>, CniError> {
        let mut devices = plan::devices(network);
        if devices.is_empty() {
            devices = vec![network.bridge.clone(), network.node_device()];
            devices.dedup();
        } else if !network.allow_direct_routing {
            return Ok(Vec::new());
        }
        devices.retain(|device| self.has(device));
        if network.uplink.is_none()
            && let Some(device) = devices.first()
            && self.has_uplink(node, &network.bridge, device).await?
        {
            log::warn!(
                "bridge {} has an uplink in another network's configuration: the node forwards nothing from there (allowDirectRouting)",
                network.bridge
            );
            devices.clear();
        }
        Ok(devices)
    }

    async fn has_uplink(&self, node: &Conn, bridge: &str, device: &str) -> Result<bool, CniError> {
        let port = fs::read_to_string(self.folder.join(device)).unwrap_or_default();
        // Written by an ADD that was killed before it had written the name: the rule stays, because the
        // device may have an uplink.
        if port.is_empty() {
            return Ok(true);
        }
        let (Some(bridge), Some(port)) =
            (link::by_name(node, bridge).await?, link::by_name(node, &port).await?)
        else {
            return Ok(false);
        };
        Ok(port.master == Some(bridge.index))
    }
}
