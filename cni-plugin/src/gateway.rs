//! The bridge as its pods' gateway: `isGateway` and `isDefaultGateway`.

use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use cni_conf::family::Family;
use cni_conf::network::Network;
use kernel::link::{Address, Link};
use kernel::{Conn, NetError, addr, link, sysctl};

use crate::lock::NodeLock;
use crate::ownership::{Attachment, Progress, attachment_of, is_attachment, is_ours};
use crate::plan::pod::{GatewayStep, gateway_addresses};

/// Adds the gateways of a result to `device`, which is the bridge or its side of the pods' VLAN, and
/// enables forwarding. Like the bridge, the addresses then belong to the node. Another pod may use them by
/// the time this ADD fails, so they are not removed.
pub async fn install(
    node: &Conn,
    network: &Network,
    attachment: &Attachment<'_>,
    bridge: &Link,
    device: &Link,
    result: &AddResult,
) -> Result<(), CniError> {
    let plan = |force: bool, present: &[Address]| gateway_addresses(&device.name, force, result, present);
    match plan(network.force_address, &addr::list(node, device.index).await?) {
        Ok(steps) => apply(node, device, &steps).await?,
        Err(conflict) => {
            let _lock = NodeLock::acquire()?;
            // The node has a new subnet, and the device still has the gateway of the old one.
            if !(is_ours(device) && is_vacant(node, bridge, attachment).await?) {
                return Err(CniError::config(conflict));
            }
            let steps = plan(true, &addr::list(node, device.index).await?).map_err(CniError::config)?;
            log::warn!("{conflict}; the bridge is vlan-bridge's and has no pods, so the address is replaced");
            apply(node, device, &steps).await?;
        }
    }
    for family in Family::BOTH {
        if result.ips.iter().any(|ip| ip.gateway.is_some_and(|gateway| Family::of(gateway) == family)) {
            sysctl::enable_forwarding(node, family).await?;
        }
    }
    Ok(())
}

async fn apply(node: &Conn, device: &Link, steps: &[GatewayStep]) -> Result<(), NetError> {
    for step in steps {
        match step {
            GatewayStep::Remove(net) => addr::del(node, device.index, *net).await?,
            GatewayStep::Add(net) => match addr::add(node, device.index, *net, false).await {
                // Another first ADD was faster.
                Err(e) if e.exists() => {}
                other => other?,
            },
        }
    }
    Ok(())
}

/// Whether no pod uses the bridge's addresses. Ports of unfinished ADDs to the same network do not count:
/// these pods get the new address as well.
async fn is_vacant(node: &Conn, bridge: &Link, attachment: &Attachment<'_>) -> Result<bool, NetError> {
    let being_made = |port: &Link| {
        is_attachment(port)
            && attachment_of(port).is_none_or(|other| {
                other.network == attachment.network && other.progress(port) == Progress::Adding
            })
    };
    let links = link::all(node).await?;
    Ok(links.iter().filter(|port| port.master == Some(bridge.index)).all(being_made))
}
