//! Addresses that stand for services: a host port of all of the node's addresses is not published there.
//!
//! In IPVS mode kube-proxy gives the node each service's address, on `kube-ipvs0`; NodeLocal DNSCache has its
//! own on a dummy interface. Both look like addresses of the node. So the addresses of such interfaces are in
//! a set, which each ADD with host ports and `repair` make what it should be, and what `serviceCIDRs` names
//! has a rule, which needs no call to know a service that comes later.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use ipnet::IpNet;
use kernel::nft::Refusal;
use kernel::nft::{self, Change, Element};
use kernel::{Conn, NetError, addr, link};

use super::{Nat, delete_key};
use crate::plan::nat::ruleset::{SERVICE_ADDRESSES, SERVICES, TABLE, of_family, service_rule};
use crate::record::Record;

/// kube-proxy's interface, whatever its kind.
const IPVS: &str = "kube-ipvs0";

impl Nat {
    /// Before the ports of an attachment are published.
    pub(super) async fn leave_services_out(&self, node: &Conn, record: &Record) -> Result<(), CniError> {
        if record.ports.is_empty() {
            return Ok(());
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
        if changes.is_empty() {
            Ok(())
        } else {
            self.commit_tolerating(changes, Refusal::not_found).map(drop)
        }
    }

    /// Rules for networks of services that have none yet.
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

/// The addresses of dummy interfaces and of kube-proxy's.
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
