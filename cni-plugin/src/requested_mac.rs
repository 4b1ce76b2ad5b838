//! A requested MAC (`runtimeConfig.mac`, `args.cni.mac`, `CNI_ARGS MAC=`): is it in use already? The bridge
//! sends packets for a MAC to one port. A pod with the MAC of the node, the router or another pod would cut
//! that host off.

use std::net::IpAddr;

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;
use cni_conf::network::Network;
use cni_conf::request::Request;
use cni_conf::uplink::UplinkPort;
use kernel::ask::{self, Vantage};
use kernel::fdb;
use kernel::link::Link;
use kernel::{Conn, NetError, link, neigh, route};
use serde_json::Value;

use crate::ownership::{Attachment, attachment_of};
use crate::record::{self, PodInterface};

/// Returns an error that names the holder if the MAC is known to be in use. Changes nothing.
pub async fn check(
    node: &Conn,
    network: &Network,
    request: &Request,
    attachment: &Attachment<'_>,
) -> Result<(), CniError> {
    let Some((mac, key)) = request.requested_mac_and_key()? else { return Ok(()) };
    let links = link::all(node).await?;
    let own = attachment.host_interface();
    let holder = match of_the_node(&links, mac) {
        Some(holder) => Some(holder),
        None => match of_an_attachment(network, &links, &own, mac)? {
            Some(holder) => Some(holder),
            None => beyond(node, network, request, &links, &own, mac).await?,
        },
    };
    match holder {
        Some(holder) => Err(taken(&format!("{key}: {mac}"), &holder)),
        None => Ok(()),
    }
}

/// The error for a MAC that is in use.
pub fn taken(asked: &str, holder: &str) -> CniError {
    CniError::new(code::MAC_TAKEN, format!("{asked} is {holder}; use a MAC that no other host has, or none"))
}

/// Describes the holder of a MAC for the error, by the port behind which the bridge knows it.
pub fn behind(port: Option<&Link>, kind: fdb::Kind) -> String {
    match port {
        Some(port) => match attachment_of(port) {
            Some(Attachment { network, container_id, ifname, .. }) => {
                format!("that of container {container_id}, interface {ifname}, network {network}")
            }
            None if kind == fdb::Kind::Local => format!("that of interface {} of this node", port.name),
            None => format!("that of a machine behind port {} of the bridge", port.name),
        },
        None => "behind another port of the bridge".into(),
    }
}

fn of_the_node(links: &[Link], mac: MacAddr) -> Option<String> {
    let holder = links.iter().find(|link| link.mac == Some(mac) || link.permanent_mac == Some(mac))?;
    Some(format!("that of interface {} of this node", holder.name))
}

/// Looks at the records, because the bridge may not know the MAC of a silent pod.
fn of_an_attachment(
    network: &Network,
    links: &[Link],
    own: &str,
    mac: MacAddr,
) -> Result<Option<String>, CniError> {
    let device = network.node_device();
    let is_here = |pod: &PodInterface| {
        pod.device == device
            || [&pod.device].into_iter().chain(&pod.bridge).any(|name| *name == network.bridge)
    };
    for (veth, pod) in record::pods()? {
        let port = links.iter().find(|link| link.name == veth).filter(|_| veth != own);
        if port.is_some() && pod.mac == Some(mac) && is_here(&pod) {
            return Ok(Some(behind(port, fdb::Kind::Static)));
        }
    }
    Ok(None)
}

/// Looks at the bridge and the neighbour tables, and asks the gateways.
async fn beyond(
    node: &Conn,
    network: &Network,
    request: &Request,
    links: &[Link],
    own: &str,
    mac: MacAddr,
) -> Result<Option<String>, CniError> {
    let gateways = gateways(network, request);
    let mut routers = gateways.clone();
    routers.extend(default_gateways(node).await?);
    if let Some((router, _)) = neigh::macs_of(node, &routers).await?.iter().find(|(_, known)| *known == mac) {
        return Ok(Some(format!("that of gateway {router}")));
    }
    let known = known_behind(node, network, links, own, mac).await?;
    let Some(uplink) = &network.uplink else {
        return Ok(known.map(|(port, kind)| behind(port, kind)));
    };
    if let Some((port, kind)) = known
        && !(kind == fdb::Kind::Learned && port.is_some_and(|port| port.name == uplink.port_name()))
    {
        return Ok(Some(behind(port, kind)));
    }
    // During a migration, a virtual machine is still heard from its old node. So the gateways are asked
    // whether the MAC is theirs.
    let answers = ask_gateways(network, links, &gateways, mac)?;
    match answers.iter().find(|(_, is_it)| *is_it) {
        Some((gateway, _)) => Ok(Some(format!("that of gateway {gateway}"))),
        None if known.is_some() && answers.is_empty() => Ok(Some(format!(
            "heard behind {}, and no gateway answers, so it may be the router's",
            uplink.port_name()
        ))),
        // A router that is silent for a moment must not lose its MAC to a pod. But a gateway that is only
        // derived from the subnet need not exist.
        None if answers.is_empty() && names_gateway(request) => Err(CniError::new(
            code::TRY_AGAIN_LATER,
            format!("no gateway answers, so {mac} may be the router's"),
        )),
        None => Ok(None),
    }
}

/// The port behind which the bridge knows the MAC, in one of the pod's VLANs. The veth of a killed ADD of
/// the same attachment does not count.
async fn known_behind<'a>(
    node: &Conn,
    network: &Network,
    links: &'a [Link],
    own: &str,
    mac: MacAddr,
) -> Result<Option<(Option<&'a Link>, fdb::Kind)>, NetError> {
    let Some(bridge) = links.iter().find(|link| link.name == network.bridge) else { return Ok(None) };
    for vid in vids(network, bridge) {
        if let Some(entry) = fdb::entry(node, bridge.index, mac, vid).await? {
            let port = links.iter().find(|link| link.index == entry.port);
            if port.is_none_or(|port| port.name != own) {
                return Ok(Some((port, entry.kind)));
            }
        }
    }
    Ok(None)
}

/// The VLANs in which a bridge knows a pod's MAC. `None` alone if the bridge does not filter by VLAN.
pub fn vids(network: &Network, bridge: &Link) -> Vec<Option<u16>> {
    match (bridge.bridge(), &network.port_vlans) {
        (Some(options), Some(wanted)) if options.vlan_filtering => wanted.ids().map(Some).collect(),
        (Some(options), None) if options.vlan_filtering => vec![Some(options.default_pvid)],
        _ => vec![None],
    }
}

/// Asks the gateways. Returns which ones answer, and whether with that MAC.
fn ask_gateways(
    network: &Network,
    links: &[Link],
    gateways: &[IpAddr],
    mac: MacAddr,
) -> Result<Vec<(IpAddr, bool)>, CniError> {
    let Some(from) = vantage(network, links).filter(|_| !gateways.is_empty()) else { return Ok(Vec::new()) };
    let asked = ask::ask_until(&from, gateways, |answers| answers.len() == gateways.len());
    let answers = asked.map_err(|e| {
        CniError::new(code::IO_FAILURE, format!("ask the gateways from {}: {e}", from.interface))
    })?;
    let answers = answers.unwrap_or_default().into_iter();
    Ok(answers.map(|(gateway, macs)| (gateway, macs.contains(&mac))).collect())
}

/// The interface from which the pods' network can be reached: before the first ADD, only the uplink.
fn vantage(network: &Network, links: &[Link]) -> Option<Vantage> {
    let uplink = network.uplink.as_ref()?;
    let is_up = |name: &str| links.iter().any(|link| link.name == name && link.up);
    let untagged = [network.node_device(), uplink.port_name().to_owned()];
    let tag = match &uplink.port {
        UplinkPort::SubInterface { vlan, .. } => Some(*vlan),
        UplinkPort::Trunk => network.port_vlans.as_ref().and_then(|vlans| vlans.access),
        UplinkPort::Master => None,
    };
    match untagged.into_iter().find(|name| is_up(name) && (tag.is_none() || *name != uplink.master)) {
        Some(interface) => Some(Vantage { interface, tag: None }),
        None => is_up(&uplink.master).then(|| Vantage { interface: uplink.master.clone(), tag }),
    }
}

/// The gateways that the configuration names or implies.
fn gateways(network: &Network, request: &Request) -> Vec<IpAddr> {
    let ranges = network.addresses.iter().flat_map(|ipam| &ipam.ranges).flat_map(|set| &set.0);
    let mut found: Vec<IpAddr> = ranges.filter_map(|range| range.gateway).collect();
    named_gateways(request.config.get("ipam").unwrap_or(&Value::Null), &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether the configuration names a gateway.
fn names_gateway(request: &Request) -> bool {
    let mut named = Vec::new();
    named_gateways(request.config.get("ipam").unwrap_or(&Value::Null), &mut named);
    !named.is_empty()
}

/// Every `gateway` and `gw` of any IPAM plugin's configuration.
fn named_gateways(value: &Value, found: &mut Vec<IpAddr>) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                let named = value.as_str().filter(|_| ["gateway", "gw"].contains(&key.as_str()));
                found.extend(named.and_then(|text| text.parse::<IpAddr>().ok()));
                named_gateways(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named_gateways(value, found)),
        _ => {}
    }
}

/// The node's own default gateways: a router often has the same MAC in all of its VLANs.
async fn default_gateways(node: &Conn) -> Result<Vec<IpAddr>, NetError> {
    let routes = route::list(node).await?;
    Ok(routes.into_iter().filter(|of| of.route.dst.prefix_len() == 0).filter_map(|of| of.route.gw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_found_in_any_ipam_configuration() {
        let ipam = r#"{"type": "whereabouts", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.2"}],
                       "ranges": [[{"gateway": "2001:db8::1"}]], "gw": 7, "other": "10.0.0.9"}"#;
        let mut found = Vec::new();
        named_gateways(&serde_json::from_str(ipam).unwrap(), &mut found);
        found.sort_unstable();
        assert_eq!(found, ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    }
}
