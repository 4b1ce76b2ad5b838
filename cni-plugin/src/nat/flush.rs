//! Removes conntrack entries of UDP flows that began before a host port was mapped, or that lead to a pod
//! that is gone. Otherwise these flows would continue as before, because the kernel applies NAT rules only
//! to the first packet of a flow.

use std::net::IpAddr;

use cni_conf::family::Family;
use cni_conf::ports::{PortMapping, Protocol};
use kernel::conntrack::{self, Connection};
use kernel::{Conn, NetError, addr};

use super::Nat;
use crate::plan::nat as plan;
use crate::record::NatRecord;

impl Nat {
    /// After host ports were mapped: deletes entries to these ports on the node's own addresses. Errors are
    /// logged and do not fail ADD.
    pub(super) async fn delete_udp_conntrack_of_node(&self, node: &Conn, record: &NatRecord) {
        if !may_have_entries(record) {
            return;
        }
        let mut found = Vec::new();
        for (mapping, target) in udp(record) {
            log_failure(self.entries(mapping, target).map(|entries| found.extend(entries)));
        }
        if found.is_empty() {
            return;
        }
        let own: Vec<IpAddr> = match addr::all(node).await {
            Ok(addresses) => addresses.iter().map(|address| address.net.addr()).collect(),
            Err(e) => return log_failure(Err(e)),
        };
        // Flows through the node to the same port of another host are not affected.
        found.retain(|entry| entry.destination.is_loopback() || own.contains(&entry.destination));
        log_failure(self.delete_entries(&found));
    }

    /// After host ports were unmapped: deletes entries to the pod.
    pub(super) fn delete_udp_conntrack_of_pod(&self, record: &NatRecord) {
        if !may_have_entries(record) {
            return;
        }
        for (mapping, target) in udp(record) {
            log_failure(self.entries(mapping, target).and_then(|mut entries| {
                entries.retain(|entry| entry.answers == target);
                self.delete_entries(&entries)
            }));
        }
    }

    /// The entries to a host port in the family of the pod's address.
    fn entries(&self, mapping: &PortMapping, target: IpAddr) -> Result<Vec<Connection>, NetError> {
        let protocol = mapping.protocol.number();
        let mut entries =
            conntrack::to_port(self.nft.socket(), Family::of(target), protocol, mapping.host_port)?;
        if let Some(host) = mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            entries.retain(|entry| entry.destination == host);
        }
        Ok(entries)
    }

    fn delete_entries(&self, entries: &[Connection]) -> Result<(), NetError> {
        entries.iter().try_for_each(|entry| conntrack::delete(self.nft.socket(), entry))
    }
}

fn udp(record: &NatRecord) -> impl Iterator<Item = (&PortMapping, IpAddr)> {
    let udp = record.ports.iter().filter(|mapping| mapping.protocol == Protocol::Udp);
    udp.flat_map(|mapping| plan::targets(record, mapping).into_iter().map(move |target| (mapping, target)))
}

fn may_have_entries(record: &NatRecord) -> bool {
    let ports: Vec<u16> = udp(record).map(|(mapping, _)| mapping.host_port).collect();
    !ports.is_empty() && conntrack::may_have_udp(&ports)
}

fn log_failure(done: Result<(), NetError>) {
    if let Err(e) = done {
        log::warn!("existing UDP flows may go to the wrong destination: {e} (modprobe nf_conntrack_netlink)");
    }
}
