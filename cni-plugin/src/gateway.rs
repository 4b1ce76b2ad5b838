//! The bridge as its pods' gateway: `isGateway` and `isDefaultGateway`.

use std::fmt;

use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use cni_conf::family::Family;
use cni_conf::network::Network;
use ipnet::IpNet;
use kernel::link::{Address, Link};
use kernel::{Conn, NetError, addr, link, sysctl};

use crate::lock::NodeLock;
use crate::ownership::{Attachment, Progress, attachment_of, is_attachment, is_ours};
use crate::plan::pod::{GatewayStep, gateway_addresses};

/// A gateway's address that the pods' device on the node lacks. As text it is what an ADD would do.
pub struct LostGateway {
    /// The bridge, or its side of the pods' VLAN.
    pub device: Link,
    address: IpNet,
}

impl fmt::Display for LostGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ip address add {} dev {}", self.address, self.device.name)
    }
}

/// The first of a result's gateways that is gone. None if the device is gone as well, or has an address that
/// an ADD would not replace.
pub async fn lost(
    node: &Conn,
    network: &Network,
    result: &AddResult,
) -> Result<Option<LostGateway>, NetError> {
    if !network.is_gateway {
        return Ok(None);
    }
    let Some(device) = link::by_name(node, &network.node_device()).await? else { return Ok(None) };
    let present = addr::list(node, device.index).await?;
    let steps = gateway_addresses(&device.name, network.force_address, result, &present).unwrap_or_default();
    let address = steps.into_iter().find_map(|step| match step {
        GatewayStep::Add(address) => Some(address),
        GatewayStep::Remove(_) => None,
    });
    Ok(address.map(|address| LostGateway { device, address }))
}

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
