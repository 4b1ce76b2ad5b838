//! Foreign rules that filter reverse paths. With br_netfilter, bridged packets pass them, with the bridge
//! as the input device. Unless the node's default route uses the bridge, the filter drops packets from
//! outside the pods' subnet.

use cni_conf::family::Family;
use kernel::nft::ReversePathFilter;
use kernel::nft::TableFamily;

use super::finding::Finding;
use crate::facts::{Facts, NetworkState};

/// The chains that drop packets on the bridge of a network with an uplink.
pub(super) fn dropped<'a>(facts: &'a Facts, network: &'a NetworkState) -> impl Iterator<Item = Finding> + 'a {
    let bridge = network.config.network.bridge.as_str();
    let filters = facts.reverse_path_filters.iter();
    let affecting =
        filters.filter(move |(_, known)| network.config.network.uplink.is_some() && !known.contains(bridge));
    affecting.filter_map(move |(filter, _)| {
        let families = [(Family::V4, filter.ipv4), (Family::V6, filter.ipv6)].into_iter();
        let concerned = families.filter(|(family, is_about)| {
            *is_about
                && calls_iptables(facts, *family)
                && network.has_family(*family)
                && !has_route_back(facts, bridge, *family, filter.strict)
        });
        let concerned: Vec<Family> = concerned.map(|(family, _)| family).collect();
        (!concerned.is_empty()).then(|| finding(filter, bridge, &concerned))
    })
}

fn calls_iptables(facts: &Facts, family: Family) -> bool {
    facts.sysctls.get(&format!("bridge/{}", call_iptables_key(family))) == Some(1)
}

fn call_iptables_key(family: Family) -> &'static str {
    match family {
        Family::V4 => "bridge-nf-call-iptables",
        Family::V6 => "bridge-nf-call-ip6tables",
    }
}

/// Whether a default route of the node satisfies the filter for all sources: one through the bridge, or any
/// if the filter is loose.
fn has_route_back(facts: &Facts, bridge: &str, family: Family, strict: bool) -> bool {
    let bridge = facts.link(bridge).map(|link| link.index);
    facts.routes.iter().any(|route| {
        let dst = route.route.dst;
        dst.prefix_len() == 0 && Family::of_net(&dst) == family && (!strict || route.interface == bridge)
    })
}

fn finding(filter: &ReversePathFilter, bridge: &str, concerned: &[Family]) -> Finding {
    let ReversePathFilter { family, table, chain, .. } = filter;
    let called: Vec<String> =
        concerned.iter().map(|family| format!("{} is 1", call_iptables_key(*family))).collect();
    let seen = format!(
        "{}, and chain {chain} of table {} {table} drops packets on {bridge} whose source has no route through it",
        called.join(", "),
        family.name()
    );
    let why =
        "bridged packets are checked against the node's routes, not the pods': answers to pods are dropped";
    let finding = Finding::fail("forward", seen, why);
    if table == "firewalld" {
        return finding
            .fix("sed -i 's/^IPv6_rpfilter=.*/IPv6_rpfilter=no/' /etc/firewalld/firewalld.conf")
            .fix("firewall-cmd --reload");
    }
    // In a table of one family, a chain of this name belongs to iptables, which does not show rules of nft.
    finding.fix(match family {
        TableFamily::Ipv4 if chain == "PREROUTING" => {
            format!("iptables -t {table} -I PREROUTING -i {bridge} -j ACCEPT")
        }
        TableFamily::Ipv6 if chain == "PREROUTING" => {
            format!("ip6tables -t {table} -I PREROUTING -i {bridge} -j ACCEPT")
        }
        _ => format!("nft insert rule {} {table} {chain} iifname {bridge} accept", family.name()),
    })
}
