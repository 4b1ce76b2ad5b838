//! `cargo xtask test-k8s`: tests the DaemonSet on a real Kubernetes.

use crate::command::usage;
use crate::counts::Counts;
use crate::test::{ensure_root, here, stage};
use crate::{product, provision};
use anyhow::Result;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask test-k8s

Starts a Kubernetes in namespaces of its own, a control plane and two nodes with containerd, kubelet and kube-proxy, applies deploy/base
to it and tests what a cluster's operator relies on. It leaves no namespace or process on the machine. The first run builds Kubernetes 1.20 from
Debian's source package, which takes some minutes and 2 GB below target/; 0.3 GB stay. Not part of `cargo xtask test`.

The last line says how many steps passed, failed and were skipped.";

/// Runs the verb.
pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    match args {
        [] => (),
        other => return Ok(usage(other, USAGE)),
    }
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
