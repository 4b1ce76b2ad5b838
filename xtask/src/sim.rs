//! `cargo xtask sim`: the search and the simulation of shared address pools, larger than the tests run them.

use crate::command::{cargo, run};
use anyhow::Result;
use std::process::ExitCode;

/// How much to simulate.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many small worlds
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    seeds: u64,
    /// How many nodes share the large pool, which has a hundred addresses for each
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    nodes: u64,
    /// How many states the search looks at. The default takes about a minute and 3.6 GB
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    states: u64,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let mut search = cargo();
    search.args(["test", "--quiet", "--package", "vlan-bridge-pool", "--lib", "--", "--nocapture"]);
    search.arg("called_lost");
    run(search.env("VLAN_BRIDGE_SEARCH_STATES", options.states.to_string()))?;
    let mut tests = cargo();
    // The crate is optimized in every profile: see Cargo.toml.
    tests.args(["test", "--quiet", "--package", "vlan-bridge-pool", "--test", "simulation"]);
    tests.args(["--", "--nocapture", "--test-threads", "1"]);
    tests.env("VLAN_BRIDGE_SIM_SEEDS", options.seeds.to_string());
    run(tests.env("VLAN_BRIDGE_SIM_NODES", options.nodes.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
