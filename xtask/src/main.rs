//! The project's own commands. `cargo xtask` without a verb lists them.

#![allow(clippy::print_stdout, reason = "a command line tool talks to its user on stdout")]

mod bench;
mod build;
mod command;
mod counts;
mod demo;
mod deny;
mod dist;
mod fuzz;
mod guest;
mod msrv;
mod oci;
mod product;
mod provision;
mod release;
mod sbom;
mod suite;
mod test;
mod test_k8s;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask VERB [OPTIONS]

  build     build the static binaries that are shipped
  demo      bring up a small data centre, attach pods on two nodes and show the traffic
  test      check formatting, lints, house rules and crates, then run every test
  test-k8s  try the DaemonSet on a real Kubernetes
  bench     time our plugins against the packaged reference plugins
  fuzz      fuzz the configuration and the files of the address store
  deny      check licences, duplicates and sources of all crates
  dist      build archives, images and sums to give away
  release   make the files of a release, and say how to commit and tag it
  vm        boot a guest kernel that has bonding and VLANs, and run a command in it
  tidy      check the house rules that a program can check

cargo xtask VERB --help says more about one of them.";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || args[0] == "--help" || args[0] == "-h" {
        println!("{USAGE}");
        return if args.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    let verb = args.remove(0);
    let outcome = match verb.as_str() {
        "bench" => bench::main(&args),
        "build" => build::main(&args),
        "demo" => demo::main(&args),
        "deny" => deny::main(&args),
        "dist" => dist::main(&args),
        "fuzz" => fuzz::main(&args),
        "release" => release::main(&args),
        "test" => test::main(&args),
        "test-k8s" => test_k8s::main(&args),
        "tidy" => tidy::main(&args),
        "vm" => vm::main(&args),
        unknown => {
            eprintln!("unknown verb {unknown:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("cargo xtask {verb}: {error:#}");
        ExitCode::FAILURE
    })
}
