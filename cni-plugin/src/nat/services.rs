//! Addresses of services. A host port for all of the node's addresses is not published there.
//!
//! In IPVS mode, kube-proxy puts each service address on the interface `kube-ipvs0`. NodeLocal DNSCache has
//! its own address on a dummy interface. Both look like addresses of the node. A set has the addresses of
//! such interfaces. Each ADD with host ports and `repair` update it. Networks in `serviceCIDRs` have rules
//! instead, which also cover services that are created later.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use ipnet::IpNet;
use kernel::nft::RefusedChange;
use kernel::nft::{self, Change, Element};
use kernel::{Conn, NetError, addr, link};

use super::{Nat, delete_key};
use crate::plan::nat::ruleset::{SERVICE_ADDRESSES, SERVICES, TABLE, of_family, service_rule};
use crate::record::NatRecord;

/// kube-proxy's interface, whatever its kind.
const IPVS: &str = "kube-ipvs0";

impl Nat {
    /// Excludes the addresses of services from host ports. Called before the ports of an attachment are
    /// published.
    pub(super) async fn exclude_service_addresses(
        &self,
        node: &Conn,
        record: &NatRecord,
    ) -> Result<(), CniError> {
        let changes = self.service_changes(node, record).await?;
        if changes.is_empty() {
            Ok(())
        } else {
            self.commit_tolerating(changes, RefusedChange::not_found).map(drop)
        }
    }

    /// What is missing for that in the packet filter.
    pub(super) async fn service_changes(
        &self,
        node: &Conn,
        record: &NatRecord,
    ) -> Result<Vec<Change>, CniError> {
        if record.ports.is_empty() {
            return Ok(Vec::new());
        }
        let mut changes = self.service_rules(&record.services)?;
        let wanted = addresses(node).await?;
        for (index, set) in SERVICE_ADDRESSES.into_iter().enumerate() {
            let there: BTreeSet<Vec<u8>> =
                self.nft.elements(TABLE, set)?.into_iter().map(|element| element.key).collect();
            let of_set = |ip: &&IpAddr| usize::from(ip.is_ipv6()) == index;
            let keys: BTreeSet<Vec<u8>> = wanted.iter().filter(of_set).map(|ip| nft::address(*ip)).collect();
            changes.extend(there.difference(&keys).map(|key| delete_key(set, key.clone())));
            changes.extend(
                wanted.iter().filter(of_set).filter(|ip| !there.contains(&nft::address(**ip))).map(element),
            );
        }
        Ok(changes)
    }

    /// New rules for service networks.
    fn service_rules(&self, services: &[IpNet]) -> Result<Vec<Change>, CniError> {
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let there: BTreeSet<String> =
            self.nft.rules(TABLE, SERVICES)?.into_iter().map(|rule| rule.comment).collect();
        Ok(services.iter().filter(|net| !there.contains(&net.to_string())).map(service_rule).collect())
    }
}

fn element(ip: &IpAddr) -> Change {
    let element = Element {
        set: of_family(SERVICE_ADDRESSES, *ip),
        key: nft::address(*ip),
        value: None,
        comment: String::new(),
    };
    Change::AddElement { table: TABLE, element }
}

/// The addresses of dummy interfaces and of kube-proxy's interface.
async fn addresses(node: &Conn) -> Result<BTreeSet<IpAddr>, NetError> {
    let mut carriers = link::dummies(node).await?;
    carriers.extend(link::by_name(node, IPVS).await?);
    let mut all = BTreeSet::new();
    for carrier in carriers {
        let held = addr::list(node, carrier.index).await?;
        all.extend(
            held.iter()
                .filter(|held| !held.net.addr().is_ipv6() || !held.link_local)
                .map(|held| held.net.addr()),
        );
    }
    Ok(all)
}
