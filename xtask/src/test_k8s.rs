//! `cargo xtask test-k8s`: tests the DaemonSet on a real Kubernetes.

use crate::counts::Counts;
use crate::test::{ensure_root, here, stage};
use crate::{product, provision};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the verb.
pub(crate) fn main() -> Result<ExitCode> {
    let mut counts = Counts::default();
    let outcome = all(&mut counts);
    if let Err(error) = &outcome {
        eprintln!("cargo xtask test-k8s: {error:#}");
    }
    println!("{counts}");
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all(counts: &mut Counts) -> Result<()> {
    ensure_root()?;
    provision::install_programs(false)?;
    stage("Kubernetes", provision::kubernetes)?;
    let product = stage("release build", product::ready)?;
    stage("kubernetes suite", || here("kubernetes", &product, None, counts))
}
