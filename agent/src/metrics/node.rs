//! What the agent does not keep, read for the metrics: addresses, paths to the switches, rules, its memory.

use std::fs;

use cni_conf::cni::error::CniError;
use kernel::Conn;
use kernel::link::{self, Kind, Link};
use kernel::nft::{Nft, Table, TableSize};
use tokio::runtime::Builder;
use vlan_bridge::features;
use vlan_bridge::watched::Watched;
use vlan_bridge_ipam::store::Usage;

use crate::usage::NetworkUsage;

/// A reading. What cannot be read is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeReading {
    /// Each network with the usage of its ranges. None if its leases cannot be read.
    pub(super) networks: Vec<(String, Option<Vec<Usage>>)>,
    pub(super) bonds: Vec<Bond>,
    /// Bridge, uplink, and whether the uplink has a carrier.
    pub(super) uplinks: Vec<(String, String, bool)>,
    /// The tables with rules of pods.
    pub(super) tables: Vec<(Table, TableSize)>,
    /// The agent's own memory, in bytes.
    pub(super) memory: Option<u64>,
}

/// A bond that is a bridge's uplink, or below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bond {
    pub(super) name: String,
    pub(super) carrier: bool,
    /// The members with a carrier, and those without.
    pub(super) members_up: usize,
    pub(super) members_down: usize,
}

impl NodeReading {
    /// Reads the node. May wait for the locks of leases.
    pub(super) fn now() -> NodeReading {
        let mut reading =
            NodeReading { memory: memory(), tables: tables().unwrap_or_default(), ..Default::default() };
        if let Ok((watched, links)) = links() {
            (reading.bonds, reading.uplinks) = paths(&watched, &links);
        }
        for NetworkUsage { network, sets } in NetworkUsage::of_this_node().unwrap_or_default() {
            reading.networks.push((network, sets.ok().map(|sets| sets.into_iter().flatten().collect())));
        }
        reading
    }
}

/// The resident memory of this process (proc_pid_status(5)).
fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn tables() -> kernel::Result<Vec<(Table, TableSize)>> {
    let nft = Nft::open()?;
    features::TABLES.into_iter().map(|table| Ok((table, nft.size(table)?))).collect()
}

fn links() -> Result<(Watched, Vec<Link>), CniError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    let runtime =
        runtime.map_err(|e| CniError::new(cni_conf::cni::error::code::IO_FAILURE, e.to_string()))?;
    runtime.block_on(async {
        let node = Conn::open()?;
        Ok((Watched::of_this_node(&node).await?, link::all(&node).await?))
    })
}

/// The bonds and the uplinks. `links` are newer than `watched`.
fn paths(watched: &Watched, links: &[Link]) -> (Vec<Bond>, Vec<(String, String, bool)>) {
    let (mut bonds, mut uplinks): (Vec<Bond>, _) = (Vec::new(), Vec::new());
    for known in &watched.bridges {
        for uplink in &known.uplinks {
            uplinks.push((known.bridge.name.clone(), uplink.port.name.clone(), uplink.port.carrier));
            let lower = uplink.parent.as_ref().unwrap_or(&uplink.port);
            if !matches!(lower.kind, Kind::Bond(_)) || bonds.iter().any(|bond| bond.name == lower.name) {
                continue;
            }
            let members = links.iter().filter(|link| link.master == Some(lower.index));
            let (up, down): (Vec<&Link>, Vec<&Link>) = members.partition(|link| link.carrier);
            bonds.push(Bond {
                name: lower.name.clone(),
                carrier: lower.carrier,
                members_up: up.len(),
                members_down: down.len(),
            });
        }
    }
    (bonds, uplinks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BOND, NIC0, NIC1, watched};

    #[test]
    fn the_members_of_a_bond_are_counted_once() {
        let mut watched = watched();
        let uplink = &mut watched.bridges[0].uplinks[0];
        uplink.parent.as_mut().unwrap().kind = Kind::Bond(Default::default());
        uplink.port.carrier = false;
        // Two VLANs of a bond.
        watched.bridges.push(watched.bridges[0].clone());
        let nic = |index, carrier, master| Link { index, carrier, master, ..Link::default() };
        let links = [nic(NIC0, true, Some(BOND)), nic(NIC1, false, Some(BOND)), nic(9, false, None)];
        let (bonds, uplinks) = paths(&watched, &links);
        let expected = Bond { name: "bond0".into(), carrier: true, members_up: 1, members_down: 1 };
        assert_eq!(bonds, [expected]);
        assert_eq!(uplinks, [(); 2].map(|()| ("br136".into(), "bond0.136".into(), false)));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory().unwrap() > 100_000);
    }
}
