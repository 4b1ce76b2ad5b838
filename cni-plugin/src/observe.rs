//! Observes the state that the plans need. Changes nothing and takes no lock.

use cni_conf::network::Network;
use kernel::link::{Installed, Kind, Link};
use kernel::{Conn, Result, addr, link, netns, port, route};

use crate::ownership;
use crate::plan::observed::{BridgeAndUplink, Surroundings};
use crate::ports::attached as ports;

/// The interfaces that the configuration names: a few look-ups by name, however many pods there are. On a
/// trunk, the VLANs of the ports and the node's VLAN sub-interfaces as well.
pub async fn uplink(conn: &Conn, network: &Network) -> Result<BridgeAndUplink> {
    let mut seen =
        BridgeAndUplink { bridge: link::by_name(conn, &network.bridge).await?, ..BridgeAndUplink::default() };
    // A bridge that we made has a pinned MAC.
    seen.bridge_mac_may_change = seen
        .bridge
        .as_ref()
        .is_some_and(|bridge| !ownership::is_ours(bridge) && link::mac_is_pinned(bridge) == Some(false));
    if let Some((name, _)) = network.node_side() {
        seen.node_side = link::by_name(conn, &name).await?;
        let is_veth = |side: &&Link| side.kind == Kind::Veth && side.parent_namespace.is_none();
        if let Some(index) = seen.node_side.as_ref().filter(is_veth).and_then(|side| side.parent) {
            seen.node_side_peer = link::by_index(conn, index).await?;
        }
    }
    let Some(uplink) = &network.uplink else { return Ok(seen) };
    seen.master = link::by_name(conn, &uplink.master).await?;
    seen.rootless = seen.master.is_none() && netns::is_rootless();
    if uplink.port_name() != uplink.master {
        seen.sub_interface = link::by_name(conn, uplink.port_name()).await?;
    }
    let bridge = seen.bridge.as_ref().map(|bridge| bridge.index);
    if let Some(index) =
        seen.master.as_ref().and_then(|master| master.master).filter(|index| Some(*index) != bridge)
    {
        seen.upper = link::by_index(conn, index).await?;
    }
    let trunk = network.trunk().is_some();
    if trunk || seen.upper.is_some() {
        seen.vlans = port::vlans(conn).await?;
    }
    if trunk {
        seen.sub_interfaces = link::vlans(conn).await?;
    }
    if let Some(bridge) =
        seen.bridge.as_ref().filter(|bridge| bridge.accept_ra.is_some_and(|accept| accept != 0))
    {
        let from_advertisement = |address: &kernel::link::Address| {
            !address.link_local && address.dynamic && address.net.addr().is_ipv6()
        };
        seen.bridge_has_dynamic_address =
            addr::list(conn, bridge.index).await?.iter().any(from_advertisement);
    }
    Ok(seen)
}

/// The same with the rest of the node's network, for changes.
pub async fn uplink_and_surroundings(conn: &Conn, network: &Network) -> Result<BridgeAndUplink> {
    let mut seen = uplink(conn, network).await?;
    seen.sub_interfaces = link::vlans(conn).await?;
    let port = match &network.uplink {
        Some(uplink) if uplink.port_name() == uplink.master => seen.master.as_ref(),
        Some(_) => seen.sub_interface.as_ref(),
        None => None,
    };
    let mut around = Surroundings { links: link::all(conn).await?, ..Surroundings::default() };
    if seen.bridge.is_none() {
        around.known_mac = ports::mac_of(&network.bridge);
    }
    if let Some(port) = port {
        let addresses = addr::list(conn, port.index).await?;
        around.port_addresses = addresses
            .iter()
            .filter(|address| !address.link_local)
            .map(|address| address.net.to_string())
            .collect();
        around.port_has_default_route = has_default_route(conn, port).await?;
    }
    seen.surroundings = Some(around);
    Ok(seen)
}

/// The same for verbs that only report: repeats the observation until two agree. An ADD may be in the
/// middle of a change, and the verb must not wait for its lock.
pub async fn settled(conn: &Conn, network: &Network) -> Result<BridgeAndUplink> {
    const LOOKS: usize = 5;
    let mut seen = uplink_and_surroundings(conn, network).await?;
    for _ in 1..LOOKS {
        let again = uplink_and_surroundings(conn, network).await?;
        if again == seen {
            break;
        }
        seen = again;
    }
    Ok(seen)
}

/// In any table: policy routing may select it for the node's traffic.
async fn has_default_route(conn: &Conn, port: &Link) -> Result<bool> {
    let by_port = |installed: &Installed| installed.interface == Some(port.index);
    Ok(route::list(conn)
        .await?
        .iter()
        .any(|installed| by_port(installed) && installed.route.dst.prefix_len() == 0))
}
