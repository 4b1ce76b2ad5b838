//! Which bridges have our pods, and which iptables tables see what these bridges forward.

use std::collections::BTreeSet;

use kernel::nft::{Table, TableFamily};
use kernel::{Conn, NetError, link};

use crate::ownership::is_attachment;
use crate::plan::nat::ruleset::IPTABLES_TABLES;

/// The iptables tables to which br_netfilter passes bridged packets, one for each family.
pub(super) fn tables_seeing_bridged() -> Vec<Table> {
    let is_on = |table: &Table| {
        let key = if table.family == TableFamily::Ipv4 { "iptables" } else { "ip6tables" };
        let value = std::fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{key}"));
        value.is_ok_and(|value| value.trim() == "1")
    };
    IPTABLES_TABLES.into_iter().filter(is_on).collect()
}

/// The bridges of our pods. `gone` is a veth that no longer counts.
pub(super) async fn bridges_of_pods(node: &Conn, gone: Option<&str>) -> Result<Vec<String>, NetError> {
    let links = link::all(node).await?;
    let pods = links.iter().filter(|link| is_attachment(link) && Some(link.name.as_str()) != gone);
    let masters: BTreeSet<u32> = pods.filter_map(|pod| pod.master).collect();
    Ok(links.into_iter().filter(|link| masters.contains(&link.index)).map(|link| link.name).collect())
}
