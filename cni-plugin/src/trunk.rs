//! Joining and leaving VLANs on a bridge that filters. Both under the node's lock, ADD after the pod's port has joined,
//! DEL after it has gone: whichever comes second sees what the first did.

use cni_conf::cni::error::CniError;
use cni_conf::network::{Network, Trunk};

use crate::apply::take_all;
use crate::link::Link;
use crate::lock::NodeLock;
use crate::net::{Conn, NetError, link, port};
use crate::plan::vlan;

/// Brings the VLANs of a pod's port onto the uplink, and the node's own side of them into being. Returns the latter.
pub async fn join(node: &Conn, network: &Network) -> Result<Option<Link>, CniError> {
    let node_side = network.node_side();
    let uplink = network.trunk();
    if uplink.is_none() && node_side.is_none() {
        return Ok(None);
    }
    let _lock = NodeLock::acquire()?;
    let find = async |name: &str| link::by_name(node, name).await?.ok_or_else(|| NetError::gone(name));
    let bridge = find(&network.bridge).await?;
    let master = match &uplink {
        Some(trunk) => Some(find(&trunk.master).await?),
        None => None,
    };
    let side = match &node_side {
        Some((name, _)) => link::by_name(node, name).await?,
        None => None,
    };
    let steps = vlan::join(network, &bridge, master.as_ref(), side.as_ref(), &port::vlans(node).await?);
    take_all(node, &steps).await?;
    Ok(match &node_side {
        Some((name, _)) => Some(find(name).await?),
        None => None,
    })
}

/// Takes the VLANs that a pod's port had off the uplink where no other port uses them. Where the bridge or the uplink
/// is gone, there is nothing to do.
///
/// The kernel's list of ports can lack one while other interfaces are being removed, so nothing is taken off that two
/// lists do not agree on, and what turns out to be in use afterwards is put back.
pub async fn leave(node: &Conn, trunk: &Trunk) -> Result<(), CniError> {
    let _lock = NodeLock::acquire()?;
    let (Some(bridge), Some(master)) =
        (link::by_name(node, &trunk.bridge).await?, link::by_name(node, &trunk.master).await?)
    else {
        return Ok(());
    };
    let unused = async |vids: &[u16]| -> Result<Vec<u16>, NetError> {
        Ok(vlan::out_of_use(vids, &bridge, &master, &port::vlans(node).await?))
    };
    let vids = unused(&unused(&trunk.vids).await?).await?;
    if vids.is_empty() {
        return Ok(());
    }
    take_all(node, &[vlan::leave(&master, &vids)]).await?;
    let back = vlan::in_use(&vids, &bridge, &master, &port::vlans(node).await?);
    if !back.is_empty() {
        take_all(node, &[vlan::rejoin(&master, &back)]).await?;
    }
    Ok(())
}
