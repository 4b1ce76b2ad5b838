//! Records of host routes, one for each attachment and device. Repair restores the routes from them. A
//! record is written before its routes are installed, and deleted before they are removed.

use std::sync::Arc;

use cni_conf::cni::error::CniError;
use ipnet::IpNet;
use kernel::link::HostRoute;
use kernel::{Conn, NetError, link, neigh, route};

use super::{HostRoutes, VethPair};
use crate::lock::RecordLock;
use crate::record::{HostRoutesRecord, PodInterface, Records};

/// Writes the record of the routes that [`super::install`] is about to install.
pub(super) fn write_record(
    recorded: &PodInterface,
    veth: &VethPair<'_>,
    routes: &HostRoutes,
) -> Result<(), CniError> {
    let is_reached = |net: &&IpNet| routes.to_pod.iter().any(|(pod, _)| *pod == net.addr());
    let addresses = recorded.addresses.iter().filter(is_reached).copied().collect();
    let record = HostRoutesRecord {
        pod: PodInterface { addresses, ..recorded.clone() },
        sources: routes.sources(),
        node_addresses: Some(routes.to_node.clone()),
    };
    let _lock = RecordLock::shared()?;
    Records::of_device(&veth.device.name)?.write(&record)
}

/// The deleted records of the routes to the pod behind a veth.
pub struct Deleted {
    /// One record for each device, even if deleting it failed.
    pub records: Vec<Arc<HostRoutesRecord>>,
    /// The first error.
    pub outcome: Result<(), CniError>,
}

/// Deletes the records of the host routes to the pod behind this veth, and returns them. Call this before
/// the routes are removed.
pub fn delete_record(veth: &str) -> Deleted {
    let devices = match Records::<HostRoutesRecord>::by_device() {
        Ok(devices) => devices,
        Err(e) => return Deleted { records: Vec::new(), outcome: Err(e) },
    };
    let records = devices.iter().filter_map(|(_, records)| records.read(veth)).collect();
    let outcome = devices.iter().try_for_each(|(_, records)| {
        {
            let _lock = RecordLock::shared()?;
            records.remove(veth)?;
        }
        if records.is_empty() {
            let _lock = RecordLock::exclusive()?;
            records.end();
            Records::<HostRoutesRecord>::end_devices()?;
        }
        Ok(())
    });
    Deleted { records, outcome }
}

/// Finds the leftovers of recorded routes: a host route, or only a neighbour entry if the kernel removed
/// the route. An entry belongs to the pod if it has the pod's MAC: on kernels before 4.20, entries do not
/// say which program made them.
pub(super) async fn leftovers_of(
    node: &Conn,
    recorded: &[Arc<HostRoutesRecord>],
) -> Result<Vec<HostRoute>, NetError> {
    let mut leftovers = Vec::new();
    for record in recorded {
        let Some(device) = link::by_name(node, &record.pod.device).await? else { continue };
        let metric = record.pod.attachment().metric();
        for address in record.pod.addresses.iter().map(IpNet::addr) {
            let is_its = match route::ours_to(node, address).await? {
                Some(route) => route.metric == metric,
                None => neigh::permanent_mac(node, device.index, address).await? == record.pod.mac,
            };
            if is_its {
                leftovers.push(HostRoute { address, interface: device.index, metric });
            }
        }
    }
    Ok(leftovers)
}

/// The veths of all pods whose routes are recorded.
pub fn recorded_veths() -> Result<Vec<String>, CniError> {
    Ok(Records::<HostRoutesRecord>::by_device()?.iter().flat_map(|(_, records)| records.veths()).collect())
}
