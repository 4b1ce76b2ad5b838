//! Pods' bridge ports: setting them up, and restoring them after another program has removed them from
//! their bridge, or has removed the bridge.
//!
//! Each finished attachment has a record (`attached.rs`). Any ADD, DEL or GC, and `vlan-bridgectl repair`,
//! restores its port from it (`repair.rs`).

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::network::Network;
use kernel::link::{Link, PortFlags};
use kernel::{Conn, fdb, link, port};

use crate::plan::vlan;
use crate::requested_mac;

pub(crate) mod attached;
mod mtu;
mod repair;
mod restoration;

pub use attached::{
    AttachmentId, RecordedBridge, RecordedNetwork, RecordedPort, delete_all_records, delete_record,
    has_no_host_routes, network_of, of_living_pods, of_veth, recorded, recorded_addresses,
    recorded_with_networks, write_record,
};
pub use mtu::follow_mtu;
pub use repair::{repair, repair_missing};

/// The flags of a pod's port.
pub fn flags(network: &Network) -> PortFlags {
    PortFlags {
        // Packets of a pod to its own host port or service return through the node, and with br_netfilter
        // within the bridge.
        hairpin: network.hairpin
            || !network.ports.is_empty()
            || !network.services().is_empty()
            || (network.is_gateway || network.masquerade) && !network.promisc,
        isolated: network.isolated,
        locked: network.mac_spoof_check,
    }
}

/// Whether the port has restrictions that must be in place before it forwards frames of the pod.
pub fn is_limited(network: &Network) -> bool {
    network.guard.is_some() || network.port_vlans.is_some() || network.mac_spoof_check
}

/// Adds the port to its VLANs and pins the pod's MAC to it. The flags are set first.
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

/// Pins the pod's MAC to the port. So the bridge does not forget a silent pod and flood its packets, and no
/// frame on another port moves the MAC. With `macspoofchk` the port is locked: it accepts only frames from
/// MACs that are pinned to it, in each of its VLANs.
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

/// An entry of another port, or of the kernel itself, is never replaced. If the MAC is still heard behind
/// another port, as during the migration of a virtual machine, it is not pinned. The bridge learns it when
/// the machine is here.
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
