//! Records of host routes, one for each attachment and device, from which they are restored. A record is
//! written before its routes are installed and deleted before they are removed.

use cni_conf::cni::error::CniError;
use ipnet::IpNet;
use kernel::link::HostRoute;
use kernel::{Conn, NetError, link, neigh, route};

use super::{HostRoutes, VethPair};
use crate::lock::RecordLock;
use crate::record::{Record, Records};

/// Writes down what [`super::install`] is about to install.
pub(super) fn write_record(
    record: &Record,
    veth: &VethPair<'_>,
    routes: &HostRoutes,
) -> Result<(), CniError> {
    let is_reached = |net: &&IpNet| routes.to_pod.iter().any(|(pod, _)| *pod == net.addr());
    let of_host_routes = Record {
        addresses: record.addresses.iter().filter(is_reached).copied().collect(),
        masquerade: false,
        ports: Vec::new(),
        sources: routes.sources(),
        services: Vec::new(),
        guard: None,
        ..record.clone()
    };
    let _lock = RecordLock::shared()?;
    Records::of_host_routes_by(&veth.device.name)?.write(&of_host_routes)
}

/// What is recorded of the routes to the pod behind a veth, and whether that could be deleted.
pub struct Deleted {
    /// One record for each device, also where deleting it failed.
    pub records: Vec<Record>,
    /// The first error.
    pub outcome: Result<(), CniError>,
}

/// Deletes what is recorded of the routes to the pod behind this veth, and returns it. To be called before
/// the routes are removed.
pub fn delete_record(veth: &str) -> Deleted {
    let folders = match Records::of_host_routes() {
        Ok(folders) => folders,
        Err(e) => return Deleted { records: Vec::new(), outcome: Err(e) },
    };
    let records = folders.iter().filter_map(|(_, records)| records.read(veth)).collect();
    let outcome = folders.iter().try_for_each(|(_, records)| {
        {
            let _lock = RecordLock::shared()?;
            records.remove(veth)?;
        }
        if records.is_empty() {
            let _lock = RecordLock::exclusive()?;
            records.end();
            Records::end_of_host_routes()?;
        }
        Ok(())
    });
    Deleted { records, outcome }
}

/// What recorded routes have left: a route of ours, or the kernel took it and left a neighbour entry, which
/// is ours if it has the pod's MAC. Entries of kernels before 4.20 do not say whose they are.
pub(super) async fn left_of(node: &Conn, recorded: &[Record]) -> Result<Vec<HostRoute>, NetError> {
    let mut left = Vec::new();
    for record in recorded {
        let Some(device) = link::by_name(node, &record.device).await? else { continue };
        let metric = record.attachment().metric();
        for address in record.addresses.iter().map(IpNet::addr) {
            let is_its = match route::ours_to(node, address).await? {
                Some(route) => route.metric == metric,
                None => neigh::permanent_mac(node, device.index, address).await? == record.mac,
            };
            if is_its {
                left.push(HostRoute { address, interface: device.index, metric });
            }
        }
    }
    Ok(left)
}

/// The veths of all pods whose routes are recorded.
pub fn recorded_veths() -> Result<Vec<String>, CniError> {
    Ok(Records::of_host_routes()?.iter().flat_map(|(_, records)| records.veths()).collect())
}
