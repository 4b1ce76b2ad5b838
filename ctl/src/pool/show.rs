//! `pool show`: a pool, one of its nodes, or one of its addresses.

use std::io::Write;
use std::net::IpAddr;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use vlan_bridge_agent::registers::{Etcd, StoreError};
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::entry::{Entry, Holder};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::runs::Runs;

use super::map::{Map, Scale};
use super::survey::{EntryKind, Survey, kind};
use super::{open, summary, with_name};
use crate::args::{Output, PoolShow};

pub(super) async fn run(call: &PoolShow, out: &mut dyn Write) -> Result<()> {
    let (store, name, _, document) = open(&call.store, &call.name).await?;
    let is_json = call.output == Output::Json;
    match (call.address, &call.node) {
        (Some(addr), _) => address(&store, &name, &document, addr, is_json, out).await,
        (_, Some(node)) => of_node(&store, &name, &Name::new(node)?, is_json, out).await,
        _ if is_json => as_json(&store, &name, &document, out).await,
        _ => as_text(&store, &name, &document, out).await,
    }
}

async fn as_json(store: &Etcd, name: &Name, document: &Document, out: &mut dyn Write) -> Result<()> {
    let mut survey = Survey::default();
    let mut blocks = store.blocks(name);
    while let Some(page) = blocks.next().await? {
        page.iter().for_each(|(key, read)| survey.add(document, *key, read));
    }
    let mut value = with_name(name, document);
    let nodes = survey.nodes.iter().map(|(node, held)| {
        json!({"node": node.as_str(), "home": held.home, "leased": held.leased, "suspect": held.suspect})
    });
    let free = u64::try_from(survey.free(document)).unwrap_or(u64::MAX);
    let counts = json!({
        "free": free, "home": survey.home, "leased": survey.leased, "suspect": survey.suspect,
        "reserved": survey.reserved, "nodes": nodes.collect::<Vec<_>>(), "unreadable": survey.unreadable,
    });
    if let (Some(value), Value::Object(counts)) = (value.as_object_mut(), counts) {
        value.extend(counts);
    }
    writeln!(out, "{value:#}")?;
    Ok(())
}

async fn as_text(store: &Etcd, name: &Name, document: &Document, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{name}: {}\n", summary(document))?;
    let (mut survey, mut map) = (Survey::default(), Map::new(document));
    // The pool's blocks, which the store has as far as they were ever written.
    let has_map = Scale::of(document) != Scale::Nothing;
    let mut all = document.blocks().filter(|_| has_map).peekable();
    let mut stored = store.blocks(name);
    while let Some(page) = stored.next().await? {
        for (key, read) in &page {
            survey.add(document, *key, read);
            while let Some(unused) = all.next_if(|block| block < key) {
                draw(&mut map, unused, Some(&Block::default()), out)?;
            }
            if all.next_if_eq(key).is_some() {
                draw(&mut map, *key, read.as_ref().ok(), out)?;
            }
        }
    }
    for unused in all {
        draw(&mut map, unused, Some(&Block::default()), out)?;
    }
    if let Some(line) = map.end() {
        writeln!(out, "{line}")?;
    }
    map.legend().iter().try_for_each(|line| writeln!(out, "{line}"))?;
    let Survey { home, leased, suspect, reserved, nodes, unreadable, .. } = &survey;
    let free = survey.free(document);
    writeln!(out, "\n{free} free, {home} at home, {leased} leased, {suspect} suspect, {reserved} reserved")?;
    for (node, held) in nodes {
        write!(out, "  {node}: {} at home, {} leased", held.home, held.leased)?;
        match held.suspect {
            0 => writeln!(out)?,
            count => writeln!(out, ", {count} suspect")?,
        }
    }
    unreadable.iter().try_for_each(|error| writeln!(out, "unreadable: {error}"))?;
    Ok(())
}

fn draw(map: &mut Map<'_>, key: BlockKey, block: Option<&Block>, out: &mut dyn Write) -> Result<()> {
    if let Some(line) = map.add(key, block) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

async fn of_node(store: &Etcd, name: &Name, node: &Name, is_json: bool, out: &mut dyn Write) -> Result<()> {
    let [mut home, mut leased, mut suspect] = [Runs::EMPTY; 3];
    let mut blocks = store.blocks(name);
    while let Some(page) = blocks.next().await? {
        let readable = page.iter().filter_map(|(key, read)| Some((key, read.as_ref().ok()?)));
        for (addr, entry) in readable
            .flat_map(|(key, block)| block.entries().map(|(offset, entry)| (key.address(offset), entry)))
        {
            match kind(entry) {
                (EntryKind::Home, Some(of)) if of == node => home.insert(addr),
                (EntryKind::Leased, Some(of)) if of == node => leased.insert(addr),
                (EntryKind::Suspect, Some(of)) if of == node => suspect.insert(addr),
                _ => {}
            }
        }
    }
    let (_, register) = store.register(node).await?;
    let parts = [("home", &home), ("leased", &leased), ("suspect", &suspect)];
    if is_json {
        let mut value =
            json!({"node": node.as_str(), "register": register.map(|register| register.to_json())});
        parts.iter().for_each(|(key, runs)| value[*key] = runs.texts().collect::<Vec<_>>().into());
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    match register.map(|register| register.to_json()) {
        Some(register) => {
            let state = register["state"].as_str().unwrap_or_default();
            writeln!(out, "{node}: {state}, epoch {}", register["epoch"])?;
        }
        None => writeln!(out, "{node}: its agent never used the store")?,
    }
    for (what, runs) in parts {
        let runs: Vec<String> = runs.texts().collect();
        let shown = if runs.is_empty() { "none".to_owned() } else { runs.join(", ") };
        writeln!(out, "  {what}: {shown}")?;
    }
    Ok(())
}

async fn address(
    store: &Etcd,
    name: &Name,
    document: &Document,
    addr: IpAddr,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    if !document.ranges.contains(addr) {
        bail!("{addr} is not in pool {name}: {}", summary(document));
    }
    let key = BlockKey::of(addr);
    let (version, block) = match store.block(name, key).await {
        Ok(read) => read,
        Err(error @ StoreError::Unreadable { .. }) => bail!("the block of {addr} cannot be read: {error}"),
        Err(error) => return Err(error.into()),
    };
    let entry = key.offset(addr).and_then(|offset| block.entry(offset));
    let said = match entry {
        None if document.exclude.contains(addr) => "excluded".to_owned(),
        None => "free".to_owned(),
        Some(entry) => words(entry),
    };
    if is_json {
        let value = json!({
            "address": addr, "block": key.to_string(), "version": version.as_str(), "said": said,
            "entry": entry.map(Entry::to_string),
        });
        writeln!(out, "{value:#}")?;
    } else {
        writeln!(out, "{addr}: {said}")?;
    }
    Ok(())
}

/// What an entry means.
fn words(entry: &Entry) -> String {
    let by =
        |holder: &Holder| format!("node {}, network {}, epoch {}", holder.node, holder.network, holder.epoch);
    match entry {
        Entry::Granted(holder) => format!("leased by {}", by(holder)),
        Entry::Home(holder) => format!("home address of {}", by(holder)),
        Entry::Slice(node) => format!("home address of node {node}, which has had no agent yet"),
        Entry::Suspect { of, .. } => {
            format!("suspect: it was held by {}, and a pod may still use it", by(of))
        }
        Entry::Unproven { by: holder, of } => {
            format!("leased by {}, and not probed yet: it was taken from {}", by(holder), by(of))
        }
        Entry::Reserved(workload) => format!("kept for workload {workload}"),
    }
}
