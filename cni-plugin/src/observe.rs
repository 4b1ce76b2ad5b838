//! Looks at what the plans want to know. Changes nothing.

use cni_conf::network::Network;

use crate::link::{Installed, Link};
use crate::net::{Conn, Result, addr, link, port, route};
use crate::plan::uplink::{Seen, Surroundings};

/// The interfaces that the configuration names: three look-ups at most, however many pods there are; on a trunk, the
/// VLANs of the ports as well.
pub async fn uplink(conn: &Conn, network: &Network) -> Result<Seen> {
    let mut seen = Seen { bridge: link::by_name(conn, &network.bridge).await?, ..Seen::default() };
    if let Some(uplink) = &network.uplink {
        seen.master = link::by_name(conn, &uplink.master).await?;
        if uplink.port_name() != uplink.master {
            seen.sub_interface = link::by_name(conn, uplink.port_name()).await?;
        }
        if network.trunk().is_some() {
            seen.vlans = port::vlans(conn).await?;
        }
    }
    Ok(seen)
}

/// The same with the rest of the node's network, for when something is to be changed.
pub async fn uplink_and_surroundings(conn: &Conn, network: &Network) -> Result<Seen> {
    let mut seen = uplink(conn, network).await?;
    let port = match &network.uplink {
        Some(uplink) if uplink.port_name() == uplink.master => seen.master.as_ref(),
        Some(_) => seen.sub_interface.as_ref(),
        None => None,
    };
    let mut around = Surroundings { links: link::all(conn).await?, ..Surroundings::default() };
    if let Some(port) = port {
        let addresses = addr::list(conn, port.index).await?;
        around.port_addresses = addresses
            .iter()
            .filter(|address| address.global)
            .map(|address| address.net.to_string())
            .collect();
        around.port_has_default_route = has_default_route(conn, port).await?;
    }
    if let Some(bridge) = &seen.bridge {
        let addresses = addr::list(conn, bridge.index).await?;
        around.bridge_has_dynamic_address =
            addresses.iter().any(|address| address.global && address.dynamic && address.net.addr().is_ipv6());
    }
    if network.uplink.is_some() {
        seen.vlans = port::vlans(conn).await?;
    }
    seen.surroundings = Some(around);
    Ok(seen)
}

/// In whatever table: policy routing may send the node's traffic there.
async fn has_default_route(conn: &Conn, port: &Link) -> Result<bool> {
    let by_port = |installed: &Installed| installed.interface == Some(port.index);
    Ok(route::list(conn)
        .await?
        .iter()
        .any(|installed| by_port(installed) && installed.route.dst.prefix_len() == 0))
}
