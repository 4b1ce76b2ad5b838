//! Keeps the node from being a router for the networks of its uplinks. `plan::boundary` says by which rules.
//!
//! For each device there is a file, `/run/vlan-bridge/uplinks/NODE/DEVICE`, written before the rule and with
//! the name of the bridge's uplink port in it: from these files everybody puts back what a firewall's restart
//! took, for all devices.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use cni_conf::cni::error::{CniError, code};
use cni_conf::network::Network;
use kernel::nft::Change;
use kernel::nft::Nft;
use kernel::{Conn, NetError, link};

use crate::lock::RecordLock;
use crate::plan::boundary::{self as plan, FORWARD, TABLE};
use crate::record::node_folder;

/// Before a pod of this network is attached: makes sure that the node forwards nothing from it, or that it
/// does again where the configuration now wants that. And puts back what others have lost.
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
        Err(e) if lacks(&e) => {
            closed.iter().try_for_each(|device| devices.remove(device))?;
            log::warn!(
                "{e}: without it the node forwards what comes from bridge {} to its other networks, wherever forwarding is on",
                network.bridge
            );
            Ok(())
        }
        other => Ok(other?),
    }
}

/// After an ADD that failed: removes the rules of devices of this network that it has not come to make.
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

/// Puts back what a firewall's restart took. Whoever calls is not failed by it.
pub fn repair_and_log() {
    if let Err(e) = repair() {
        log::error!("{e}");
    }
}

/// The same, returning in words what was put back.
pub fn repair() -> Result<Option<String>, CniError> {
    let devices = Devices::of_this_node()?;
    let all = devices.all();
    if all.is_empty() || plan::is_whole(&there(&Nft::open()?)?, &all) {
        return Ok(None);
    }
    let _lock = RecordLock::exclusive()?;
    let what = "what keeps the node from routing for its uplinks' networks was gone from the packet filter";
    log::warn!("{what}: putting it back");
    rebuild(&devices)?;
    Ok(Some(what.to_owned()))
}

/// Makes the table anew for all devices. A device that is gone meets nothing. For who holds the lock alone.
fn rebuild(devices: &Devices) -> Result<(), NetError> {
    let nft = Nft::open()?;
    let all = devices.all();
    if !all.is_empty() {
        return nft.commit(&plan::table(&all));
    }
    if nft.has_table(TABLE)? { nft.commit(&[Change::DeleteTable(TABLE)]) } else { Ok(()) }
}

/// The devices whose rules are there.
fn there(nft: &Nft) -> Result<Vec<String>, NetError> {
    match nft.rules(TABLE, FORWARD) {
        Err(e) if e.not_found() => Ok(Vec::new()),
        other => Ok(other?.into_iter().map(|rule| rule.comment).collect()),
    }
}

/// Whether it is the kernel that has no such rules.
fn lacks(error: &NetError) -> bool {
    error.unsupported() || error.not_found()
}

/// For CHECK: what of a network's devices is no longer as ADD left it.
pub fn difference(network: &Network) -> Result<Option<String>, CniError> {
    let devices = Devices::of_this_node()?;
    let known: Vec<String> =
        plan::devices(network).into_iter().filter(|device| devices.has(device)).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let there = there(&Nft::open()?)?;
    Ok(known.into_iter().find(|device| !there.contains(device)).map(|device| {
        format!("the rule of {device} is gone from table {TABLE}: the node may forward what comes from there")
    }))
}

/// For who looks at a node: the devices of a network that the node forwards for, though the configuration
/// does not ask for it. Where there are no pods, only those that had some.
pub fn open_devices(network: &Network, has_pods: bool) -> Result<Vec<String>, CniError> {
    let mut devices = plan::devices(network);
    if network.allow_direct_routing || devices.is_empty() {
        return Ok(Vec::new());
    }
    let there: BTreeSet<String> = there(&Nft::open()?)?.into_iter().collect();
    let known = Devices::of_this_node()?;
    devices.retain(|device| !there.contains(device) && (has_pods || known.has(device)));
    Ok(devices)
}

/// Takes table and files away, for who takes all of us away. A kernel without nf_tables has no table.
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

/// The files that say for which devices there is a rule.
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
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        fs::write(&path, port).map_err(|e| {
            // On a full disk an empty one may be there, which says nothing.
            let _ = fs::remove_file(&path);
            failed(e)
        })
    }

    fn remove(&self, device: &str) -> Result<(), CniError> {
        let path = self.folder.join(device);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(CniError::new(code::IO_FAILURE, format!("remove record {}: {e}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// The devices whose rule has to go for this network: its key asks for it, or it has no uplink on a
    /// bridge that had one before.
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
                "bridge {} has an uplink by another network's configuration: the node forwards nothing from there (allowDirectRouting)",
                network.bridge
            );
            devices.clear();
        }
        Ok(devices)
    }

    async fn has_uplink(&self, node: &Conn, bridge: &str, device: &str) -> Result<bool, CniError> {
        let port = fs::read_to_string(self.folder.join(device)).unwrap_or_default();
        // Of who was killed before it had written the name: what may have an uplink stays closed.
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
