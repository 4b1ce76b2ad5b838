//! `repair`: puts back what others have taken away of pods' networks, and looks whether all is well then.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::cli::{self, Output, Repair};
use crate::{doctor, node, observe};

/// Runs the verb. False if something could not be put back, or the doctor still finds a failure.
pub(crate) fn run(call: &Repair, out: &mut dyn Write) -> Result<bool> {
    let (repaired, failed) = node::runtime()?.block_on(vlan_bridge::repair::all())?;
    failed.iter().for_each(|error| cli::complain(&format!("vlan-bridgectl: {error}")));
    let facts = observe::node(None, None, &[])?;
    let left: Vec<doctor::Finding> = doctor::failures(&facts);
    if call.output == Output::Json {
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
