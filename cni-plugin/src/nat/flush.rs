//! UDP conversations that began before a host port was mapped, or go to a pod that is gone, would go on as
//! they began: the kernel asks the rules about the first packet only.

use std::net::IpAddr;

use cni_conf::family::Family;
use cni_conf::ports::{PortMapping, Protocol};
use kernel::conntrack::{self, Entry};
use kernel::{Conn, NetError, addr};

use super::Nat;
use crate::plan::nat as plan;
use crate::record::Record;

impl Nat {
    /// When host ports have been mapped: what goes to them on the node's own addresses. An attachment is good
    /// without it: what fails is logged.
    pub(super) async fn delete_udp_conntrack_of_node(&self, node: &Conn, record: &Record) {
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
        // What goes through the node to the same port of somebody else is none of our business.
        found.retain(|entry| entry.destination.is_loopback() || own.contains(&entry.destination));
        log_failure(self.delete_entries(&found));
    }

    /// When host ports are no longer mapped: what went to the pod.
    pub(super) fn delete_udp_conntrack_of_pod(&self, record: &Record) {
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

    /// What goes to a host port in the family of the pod's address.
    fn entries(&self, mapping: &PortMapping, target: IpAddr) -> Result<Vec<Entry>, NetError> {
        let protocol = mapping.protocol.number();
        let mut entries =
            conntrack::to_port(self.nft.socket(), Family::of(target), protocol, mapping.host_port)?;
        if let Some(host) = mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            entries.retain(|entry| entry.destination == host);
        }
        Ok(entries)
    }

    fn delete_entries(&self, entries: &[Entry]) -> Result<(), NetError> {
        entries.iter().try_for_each(|entry| conntrack::delete(self.nft.socket(), entry))
    }
}

fn udp(record: &Record) -> impl Iterator<Item = (&PortMapping, IpAddr)> {
    let udp = record.ports.iter().filter(|mapping| mapping.protocol == Protocol::Udp);
    udp.flat_map(|mapping| plan::targets(record, mapping).into_iter().map(move |target| (mapping, target)))
}

fn may_have_entries(record: &Record) -> bool {
    let ports: Vec<u16> = udp(record).map(|(mapping, _)| mapping.host_port).collect();
    !ports.is_empty() && conntrack::may_have_udp(&ports)
}

fn log_failure(done: Result<(), NetError>) {
    if let Err(e) = done {
        log::warn!("old UDP conversations may go astray: {e} (modprobe nf_conntrack_netlink)");
    }
}
