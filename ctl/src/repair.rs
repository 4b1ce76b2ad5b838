//! `repair`: restores what other programs removed from pods' networks, and then runs doctor's checks.

use std::io::Write;

use anyhow::Result;
use cni_conf::cni::error::CniError;
use kernel::Conn;
use serde_json::json;
use vlan_bridge::repairs::Repairs;
use vlan_bridge::{boundary, features};

use crate::args::{Lists, Output, Repair};
use crate::facts::Facts;
use crate::{doctor, node, observe, output};

/// Runs the verb. Returns false if something could not be restored, or a check still fails.
pub(crate) fn run(args: &Repair, out: &mut dyn Write) -> Result<bool> {
    let runtime = node::runtime()?;
    let mut repairs = Repairs::of_everything();
    runtime.block_on(features::repair(&mut repairs))?;
    let mut repaired: Vec<String> =
        repairs.restored.iter().map(|(subject, what)| format!("{subject}: {what}")).collect();
    let mut failed: Vec<String> =
        repairs.failed.iter().map(|(subject, error)| format!("{subject}: not restored: {error}")).collect();
    let mut facts = observe::gather(&Lists::default(), None)?;
    if !facts.open_uplinks.is_empty() {
        match runtime.block_on(close_uplinks(&facts)) {
            Ok(closed) => repaired.extend(closed),
            Err(error) => failed.push(error.to_string()),
        }
        facts = observe::gather(&Lists::default(), None)?;
    }
    failed.iter().for_each(|error| output::report(&format!("vlan-bridgectl: {error}")));
    let left: Vec<doctor::Finding> = doctor::failures(&facts);
    if args.output == Output::Json {
        let left: Vec<_> = left.iter().map(doctor::Finding::to_json).collect();
        writeln!(out, "{:#}", json!({"repaired": repaired, "left": left}))?;
    } else {
        for what in &repaired {
            writeln!(out, "repaired  {what}")?;
        }
        if repaired.is_empty() {
            writeln!(out, "nothing to repair")?;
        }
        left.iter().try_for_each(|finding| writeln!(out, "{finding}"))?;
    }
    Ok(failed.is_empty() && left.is_empty())
}

/// Installs the rules that stop the node from forwarding between an uplink's network and its others, for
/// pods that an earlier version attached. Only the lists name these networks.
async fn close_uplinks(facts: &Facts) -> Result<Vec<String>, CniError> {
    let conn = Conn::open()?;
    let mut closed = Vec::new();
    for network in facts.networks.iter().map(|network| &network.config.network) {
        let is_open = boundary::open_devices(network, facts.has_pods(&network.bridge))?;
        if !is_open.is_empty() {
            boundary::ensure(&conn, network).await?;
            closed.push(format!(
                "the node forwarded packets from {} to its other networks",
                is_open.join(", ")
            ));
        }
    }
    Ok(closed)
}
