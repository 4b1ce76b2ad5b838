//! `pool freeze` and `pool thaw`.

use std::io::Write;

use anyhow::{Result, bail};
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::version::Swap;

use crate::args;

pub(super) async fn freeze(call: &args::PoolState, out: &mut dyn Write) -> Result<()> {
    let name = &call.name;
    if set(call, PoolState::Frozen, false).await? {
        writeln!(out, "pool {name} is frozen: no node claims from it; pods get what their nodes hold")?;
    } else {
        writeln!(out, "pool {name} was frozen already")?;
    }
    Ok(())
}

pub(super) async fn thaw(call: &args::PoolThaw, out: &mut dyn Write) -> Result<()> {
    let name = &call.pool.name;
    if set(&call.pool, PoolState::Open, call.after_restore).await? {
        writeln!(out, "pool {name} is open: nodes claim from it")?;
    } else {
        writeln!(out, "pool {name} was open already")?;
    }
    Ok(())
}

/// Writes the state. False if it was so already.
async fn set(call: &args::PoolState, state: PoolState, after_restore: bool) -> Result<bool> {
    let (store, name, version, mut document) = super::open(&call.store, &call.name).await?;
    if document.state == state {
        return Ok(false);
    }
    if document.state == PoolState::Recovering && !after_restore {
        bail!(
            "pool {name} is recovering, so no node claims from it: when every node has caught up or is off for \
             good, `vlan-bridgectl pool thaw {name} --after-restore` opens it"
        );
    }
    document.state = state;
    match store.change(&name, &version, &document).await? {
        Swap::Done(_) => Ok(true),
        Swap::Lost(..) => bail!("somebody else has changed pool {name} meanwhile: try again"),
        Swap::Unknown => bail!("no answer: `vlan-bridgectl pool list` shows the state of pool {name}"),
    }
}
