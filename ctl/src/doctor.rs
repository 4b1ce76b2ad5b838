//! `doctor`: checks the node. `observe` gathers the facts, the checks judge them, and this prints the
//! findings.

mod addresses;
mod agent;
mod bridges;
mod configuration;
mod definitions;
mod filter;
mod finding;
mod kernel;
mod neighbours;
mod pools;
mod ports;
mod reverse_path;
mod routing;
mod runtimes;
#[cfg(test)]
mod tests;
mod uplink;

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use crate::args::{Doctor, Output};
use crate::facts::Facts;
use crate::observe;
pub(crate) use finding::Finding;
use finding::{Severity, counted};

/// Every check, in the order in which one would debug.
const CHECKS: [fn(&Facts) -> Vec<Finding>; 27] = [
    runtimes::all,
    configuration::lists,
    configuration::plugins,
    configuration::status,
    definitions::conflicts,
    definitions::foreign,
    kernel::modules,
    kernel::settings,
    kernel::router_advertisements,
    neighbours::tables,
    uplink::masters,
    uplink::bonds,
    bridges::all,
    ports::ports,
    uplink::mtu,
    uplink::misplaced_addresses,
    routing::reverse_path,
    routing::loose_trunks,
    routing::host_access,
    filter::forwarding,
    filter::rules,
    filter::guard,
    agent::all,
    pools::all,
    addresses::vlan,
    addresses::conflicts,
    addresses::leases,
];

/// The failures, without probing.
pub(crate) fn failures(facts: &Facts) -> Vec<Finding> {
    let findings = CHECKS.iter().flat_map(|check| check(facts));
    findings.filter(|finding| finding.severity == Severity::Fail).collect()
}

/// Runs the verb. Returns false if a check fails.
pub(crate) fn run(args: &Doctor, out: &mut dyn Write) -> Result<bool> {
    let mut facts = observe::gather(&args.inspect.lists, args.bin_dir.as_deref())?;
    if !args.no_probe {
        observe::probe(&mut facts);
    }
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&facts)).collect();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let failures = count(Severity::Fail);
    if args.inspect.output == Output::Json {
        writeln!(out, "{:#}", Value::from_iter(findings.iter().map(Finding::to_json)))?;
        return Ok(failures == 0);
    }
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let (warnings, failed) = (counted(count(Severity::Warn), "warning"), counted(failures, "failure"));
    writeln!(out, "{} ok, {warnings}, {failed}", count(Severity::Ok))?;
    Ok(failures == 0)
}
