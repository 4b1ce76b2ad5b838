//! `pool create`.

use std::io::Write;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use serde_json::json;
use vlan_bridge_agent::registers::Etcd;
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::version::Swap;

use super::{store, summary};
use crate::args::{PoolCreate, WhoReclaims};

/// How long nobody has heard of a node before others may call it lost, in seconds.
const LOST_AFTER: u64 = 1800;
/// The longest time that an ADD may take after it chose an address, in seconds.
const MARGIN: u64 = 300;

pub(super) async fn run(call: &PoolCreate, out: &mut dyn Write) -> Result<()> {
    let name = Name::new(&call.name)?;
    let (document, ends) = document(call)?;
    let store = store::find(&call.store)?;
    refuse_overlap(&store, &name, &document).await?;
    let leftover = store.blocks(&name).next().await?.unwrap_or_default();
    if let Some((block, _)) = leftover.first() {
        bail!("the store has blocks of an earlier pool {name}, such as {block}: choose another name");
    }
    match store.create(&name, &document).await? {
        Swap::Done(_) => {}
        Swap::Lost(..) => bail!("there is a pool {name} already: `vlan-bridgectl pool show {name}` shows it"),
        Swap::Unknown => bail!("no answer: `vlan-bridgectl pool list` shows whether pool {name} was made"),
    }
    writeln!(out, "made pool {name}: {}", summary(&document))?;
    if !ends.is_empty() {
        let ends: Vec<String> = ends.iter().map(IpAddr::to_string).collect();
        writeln!(out, "excluded, because no host has them: {}", ends.join(", "))?;
    }
    Ok(())
}

/// The document, and which network and broadcast addresses are excluded.
fn document(call: &PoolCreate) -> Result<(Document, Vec<IpAddr>)> {
    let mut ends = Vec::new();
    for (option, values) in [("range", &call.range), ("exclude", &call.exclude)] {
        for value in values.iter().filter(|value| value.contains('/')) {
            let net: IpNet = value
                .parse()
                .with_context(|| format!("--{option}: {value} is not a CIDR such as 172.20.56.0/24"))?;
            if net.trunc() != net {
                bail!("--{option}: {net} has host bits set: {} would be right", net.trunc());
            }
            if option == "range" {
                ends.extend(unusable(net));
            }
        }
    }
    let exclude = call.exclude.iter().cloned().chain(ends.iter().map(IpAddr::to_string));
    let reclaim = match call.reclaim {
        WhoReclaims::Operator => "operator",
    };
    let mut id = [0; 16];
    getrandom::getrandom(&mut id).context("cannot draw a random number")?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let value = json!({
        "v": 1, "id": id, "ranges": call.range, "exclude": exclude.collect::<Vec<_>>(), "reclaim": reclaim,
        "lostAfter": LOST_AFTER, "margin": MARGIN, "state": "open",
    });
    let document = Document::from_json(&value)?;
    if document.addresses().is_empty() {
        bail!("all addresses of the ranges are excluded");
    }
    Ok((document, ends))
}

/// The addresses of a subnet that no host has.
fn unusable(net: IpNet) -> Vec<IpAddr> {
    match net {
        _ if net.max_prefix_len() - net.prefix_len() < 2 => Vec::new(),
        IpNet::V4(_) => vec![net.network(), net.broadcast()],
        // The routers' anycast address.
        IpNet::V6(_) => vec![net.network()],
    }
}

async fn refuse_overlap(store: &Etcd, name: &Name, document: &Document) -> Result<()> {
    for (other, read) in store.pools().await? {
        let (_, theirs) =
            read.map_err(|error| anyhow!("it is unclear whether pool {other} overlaps: {error}"))?;
        if other != *name
            && let Some(addr) = document.ranges.first_common(&theirs.ranges)
        {
            bail!("pool {other} has {addr} too: an address must be in one pool only");
        }
    }
    Ok(())
}
