//! Finds missing host routes to pods (`hostAccess`).

use std::net::IpAddr;

use anyhow::Result;
use kernel::Conn;
use kernel::link::Link;
use vlan_bridge::ownership::{Attachment, Progress, attachment_of};
use vlan_bridge::record::{GuardRecord, Records};
use vlan_bridge::{host_access, ports};
use vlan_bridge_ipam::store::Holder;

use crate::facts::{Facts, MissingRoute, NetworkState};

/// Checks every complete attachment whose addresses vlan-bridge-ipam manages.
pub(super) async fn missing(facts: &Facts) -> Result<Vec<MissingRoute>> {
    let (conn, records) = (Conn::open()?, Records::<GuardRecord>::of_this_node()?);
    let mac = |veth: &String| {
        let guarded = records.read(veth).and_then(|record| record.pod.mac);
        guarded.or_else(|| facts.records.get(veth).and_then(|record| record.pod.mac))
    };
    let mut lost = Vec::new();
    for link in facts.attachments() {
        let Some(attachment) = attachment_of(link).filter(|of| of.progress(link) == Progress::Ready) else {
            continue;
        };
        let Some(network) = facts.networks.iter().find(|network| network.config.name == attachment.network)
        else {
            continue;
        };
        let Some((wanted, device)) = network.config.network.host_access.as_ref().zip(device(facts, network))
        else {
            continue;
        };
        if !wanted.asked_for && ports::has_no_host_routes(&link.name) {
            continue;
        }
        let addresses = addresses(network, &attachment);
        let metric = attachment.metric();
        for missing in host_access::missing(&conn, wanted, device, metric, &addresses).await? {
            lost.push(MissingRoute {
                veth: link.name.clone(),
                device: device.name.clone(),
                metric,
                mac: mac(&link.name),
                missing,
            });
        }
    }
    Ok(lost)
}

fn device<'a>(facts: &'a Facts, network: &NetworkState) -> Option<&'a Link> {
    facts.link(&network.config.network.node_device())
}

fn addresses(network: &NetworkState, attachment: &Attachment<'_>) -> Vec<IpAddr> {
    let is_its = |holder: &Holder| match holder {
        Holder::Attachment(owner) => {
            owner.container_id == attachment.container_id && owner.ifname == attachment.ifname
        }
        _ => false,
    };
    let held = network.leases.held.iter().filter(|(_, known)| is_its(&known.holder));
    held.map(|(address, _)| *address).collect()
}
