//! `cargo xtask sim`: the simulation of shared address pools, larger than the tests run it.

use crate::command::{cargo, run};
use anyhow::Result;
use std::process::ExitCode;

/// How much to simulate.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many small worlds
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    seeds: u64,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let mut tests = cargo();
    tests.args(["test", "--quiet", "--release", "--package", "vlan-bridge-pool", "--test", "simulation"]);
    tests.args(["--", "--include-ignored", "--nocapture", "--test-threads", "1"]);
    run(tests.env("VLAN_BRIDGE_SIM_SEEDS", options.seeds.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
