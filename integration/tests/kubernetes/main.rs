//! A Kubernetes of one control plane and two nodes, on which the DaemonSet installs our plugins, for `cargo
//! xtask test-k8s`. The steps share the cluster and run in order.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a step fails by panicking, and says so to `cargo xtask test-k8s` as libtest would"
)]

mod agent;
mod cluster;
mod control;
mod kubectl;
mod machine;
mod operate;
mod outside;
mod pods;
mod services;
mod steps;

use cluster::Cluster;
use outside::outside;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let (start, before) = (Instant::now(), outside());
    let cluster = Cluster::start();
    let (mut passed, mut failed) = (0, 0);
    let mut tell = |name: &str, began: Instant, ok: bool| {
        let said = if ok { "ok" } else { "FAILED" };
        println!("test {name} ... {said} ({:.1} s)", began.elapsed().as_secs_f64());
        *if ok { &mut passed } else { &mut failed } += 1;
        failed
    };
    let mut failures = 0;
    for (name, step) in steps::ALL {
        let began = Instant::now();
        let ok = catch_unwind(AssertUnwindSafe(|| step(&cluster))).is_ok();
        // Later ones may fail because of the first.
        if !ok && failures == 0 {
            println!("{}", cluster.account());
        }
        failures = tell(name, began, ok);
    }
    let began = Instant::now();
    drop(cluster);
    let after = outside();
    if after != before {
        println!("before: {before:#?}\nafter: {after:#?}");
    }
    tell("the_machine_is_as_it_was", began, after == before);
    let (word, took) = (if failed == 0 { "ok" } else { "FAILED" }, start.elapsed().as_secs_f64());
    println!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {took:.2}s"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
