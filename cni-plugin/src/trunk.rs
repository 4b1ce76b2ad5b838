//! Joining and leaving VLANs on a bridge with VLAN filtering, both under the node's lock. ADD does it after
//! the pod's port has joined, DEL after it has gone. So the later one sees what the earlier one did.

mod added;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use cni_conf::vlans::Trunk;
use kernel::link::Link;
use kernel::port::Memberships;
use kernel::{Conn, NetError, addr, link, port};

use crate::apply::apply_all;
use crate::lock::NodeLock;
use crate::plan::Step;
use crate::plan::vlan;
use crate::{ownership, trunk::added::Added};

pub use crate::plan::vlan::DUMMY;
pub use added::remove_all as remove_records;

/// Adds the VLANs of the pod's port `host` to the uplink, and makes the node's own side of them. Returns
/// the latter.
pub async fn join(node: &Conn, network: &Network, host: &Link) -> Result<Option<Link>, CniError> {
    Ok(join_and_report(node, network, host).await?.0)
}

/// The same. Also returns the applied steps.
pub async fn join_and_report(
    node: &Conn,
    network: &Network,
    host: &Link,
) -> Result<(Option<Link>, Vec<Step>), CniError> {
    let node_side = network.node_side();
    if network.trunk().is_none() && node_side.is_none() {
        return Ok((None, Vec::new()));
    }
    let _lock = NodeLock::acquire()?;
    let Joining { bridge, master, seen, steps } = joining(node, network).await?;
    if let Some(master) = &master {
        note_added(network, &bridge, master, host, &seen)?;
    }
    apply_all(node, &steps).await?;
    let side = match &node_side {
        Some((name, _)) => Some(find(node, name).await?),
        None => None,
    };
    Ok((side, steps))
}

/// The steps that [`join`] would apply. Changes nothing and takes no lock.
pub async fn missing(node: &Conn, network: &Network) -> Result<Vec<Step>, CniError> {
    if network.trunk().is_none() && network.node_side().is_none() {
        return Ok(Vec::new());
    }
    Ok(joining(node, network).await?.steps)
}

/// What is there of a trunk, and the steps that a port's VLANs need.
struct Joining {
    bridge: Link,
    master: Option<Link>,
    seen: Vec<Memberships>,
    steps: Vec<Step>,
}

async fn joining(node: &Conn, network: &Network) -> Result<Joining, NetError> {
    let bridge = find(node, &network.bridge).await?;
    let master = match network.trunk() {
        Some(trunk) => Some(find(node, &trunk.master).await?),
        None => None,
    };
    let side = match network.node_side() {
        Some((name, _)) => link::by_name(node, &name).await?,
        None => None,
    };
    let seen = port::vlans(node).await?;
    // Only services and host ports need the dummy address.
    let has_address = !network.has_nat() || !addr::list(node, bridge.index).await?.is_empty();
    let steps = vlan::join(network, &bridge, master.as_ref(), side.as_ref(), has_address, &seen);
    Ok(Joining { bridge, master, seen, steps })
}

async fn find(node: &Conn, name: &str) -> Result<Link, NetError> {
    link::by_name(node, name).await?.ok_or_else(|| NetError::gone(name))
}

/// Records the VLANs that this ADD is about to add to the uplink. A bridge without such records may already
/// have pods, from a release that kept none: their VLANs count as added by us, too.
fn note_added(
    network: &Network,
    bridge: &Link,
    master: &Link,
    host: &Link,
    seen: &[Memberships],
) -> Result<(), CniError> {
    if !ownership::is_ours(bridge) {
        return Ok(());
    }
    let wanted = network.port_vlans.iter().flat_map(|wanted| wanted.ids());
    let mut ours: Vec<u16> = wanted.filter(|vid| !vlan::takes_part(seen, master.index, *vid)).collect();
    let added = Added::of(bridge, master)?;
    let is_known = added.is_known();
    if !is_known {
        let of_others = seen.iter().filter(|entry| entry.port != host.index).cloned().collect::<Vec<_>>();
        let carried = vlan::of_member(seen, master.index);
        ours.extend(vlan::in_use(&carried, bridge, master, &of_others));
    }
    if is_known && ours.is_empty() { Ok(()) } else { added.insert(&ours) }
}

/// Removes the VLANs of a pod's port from the uplink if an ADD added them and neither another port nor the
/// node itself uses them. Does nothing if the bridge or the uplink is gone.
///
/// The kernel's list of ports can be incomplete while other interfaces are being removed. So a VLAN is
/// removed only if two lists agree, and added again if it turns out to be in use.
pub async fn leave(node: &Conn, trunk: &Trunk) -> Result<(), CniError> {
    let _lock = NodeLock::acquire()?;
    let (Some(bridge), Some(master)) =
        (link::by_name(node, &trunk.bridge).await?, link::by_name(node, &trunk.master).await?)
    else {
        return Ok(());
    };
    let added = Added::of(&bridge, &master)?;
    let vids = if added.is_known() { added.among(&trunk.vids) } else { trunk.vids.clone() };
    let unused = async |vids: &[u16]| -> Result<Vec<u16>, NetError> {
        Ok(vlan::out_of_use(vids, &bridge, &master, &port::vlans(node).await?))
    };
    let vids = unused(&unused(&vids).await?).await?;
    let vids = without_the_nodes_own(node, &bridge, vids).await?;
    if vids.is_empty() {
        return Ok(());
    }
    apply_all(node, &[vlan::leave(&master, &vids)]).await?;
    let back = vlan::in_use(&vids, &bridge, &master, &port::vlans(node).await?);
    if !back.is_empty() {
        apply_all(node, &[vlan::rejoin(&master, &back)]).await?;
    }
    let gone: Vec<u16> = vids.into_iter().filter(|vid| !back.contains(vid)).collect();
    added.remove(&gone)
}

/// Excludes VLANs that the node itself uses on the bridge: through an operator's interface, or an address
/// on one of our interfaces.
async fn without_the_nodes_own(node: &Conn, bridge: &Link, vids: Vec<u16>) -> Result<Vec<u16>, NetError> {
    if vids.is_empty() {
        return Ok(vids);
    }
    let own = vlan::of_the_node(bridge, &link::all(node).await?, &addr::all(node).await?);
    Ok(vids.into_iter().filter(|vid| !own.contains(vid)).collect())
}
