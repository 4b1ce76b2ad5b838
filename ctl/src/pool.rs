//! `pool`: what an operator does with shared address pools.
//!
//! - `store` finds the store.
//! - `create` and `state` write a pool's document.
//! - `survey` counts a pool's blocks as they come, `map` draws them.
//! - `show` prints that.

mod create;
mod map;
mod show;
mod state;
mod store;
mod survey;

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde_json::json;
use vlan_bridge_agent::registers::Etcd;
use vlan_bridge_pool::document::{Document, PoolState};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::version::Version;

use crate::args::{Output, PoolCommand, PoolList, PoolVerb, StoreOptions};

/// Runs the verb.
pub(crate) fn run(call: &PoolCommand, out: &mut dyn Write) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the async runtime")?;
    runtime.block_on(async {
        match &call.verb {
            PoolVerb::Create(call) => create::run(call, out).await,
            PoolVerb::List(call) => list(call, out).await,
            PoolVerb::Show(call) => show::run(call, out).await,
            PoolVerb::Freeze(call) => state::freeze(call, out).await,
            PoolVerb::Thaw(call) => state::thaw(call, out).await,
        }
    })
}

async fn list(call: &PoolList, out: &mut dyn Write) -> Result<()> {
    let pools = store::find(&call.store)?.pools().await?;
    if call.output == Output::Json {
        let all = pools.iter().map(|(name, read)| match read {
            Ok((_, document)) => with_name(name, document),
            Err(error) => json!({"name": name.as_str(), "error": error.to_string()}),
        });
        writeln!(out, "{:#}", serde_json::Value::from_iter(all))?;
        return Ok(());
    }
    if pools.is_empty() {
        writeln!(out, "the store has no pool")?;
    }
    for (name, read) in &pools {
        match read {
            Ok((_, document)) => writeln!(out, "{name}: {}", summary(document))?,
            Err(error) => writeln!(out, "{name}: unreadable: {error}")?,
        }
    }
    Ok(())
}

/// A pool's document with its name, and the number of its addresses.
fn with_name(name: &Name, document: &Document) -> serde_json::Value {
    let mut value = document.to_json();
    value["name"] = name.as_str().into();
    // Beyond 2^64 a number means nothing to any reader.
    value["size"] = u64::try_from(document.addresses().len()).unwrap_or(u64::MAX).into();
    value
}

/// `254 addresses of 172.20.56.0/24, open`
fn summary(document: &Document) -> String {
    let value = document.to_json();
    let ranges = value["ranges"].as_array().into_iter().flatten().filter_map(|range| range.as_str());
    let state = match document.state {
        PoolState::Open => "open",
        PoolState::Recovering => "recovering",
        PoolState::Frozen => "frozen",
    };
    let count = document.addresses().len();
    format!("{count} addresses of {}, {state}", ranges.collect::<Vec<_>>().join(", "))
}

/// The client of the store, the pool's name and its document.
async fn open(options: &StoreOptions, name: &str) -> Result<(Etcd, Name, Version, Document)> {
    let (store, name) = (store::find(options)?, Name::new(name)?);
    match store.document(&name).await? {
        Some((version, document)) => Ok((store, name, version, document)),
        None => bail!("there is no pool {name}: `vlan-bridgectl pool list` shows those of the store"),
    }
}
