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
mod screenshots;
mod sim;
mod suite;
mod test;
mod test_k8s;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the binaries as they are shipped, small and static, and print where they are
    ///
    /// They are linked against musl where the toolchain has that target or rustup can add it, else against
    /// glibc.
    Build,
    /// Bring up a small data centre, attach pods on two nodes and show the traffic
    ///
    /// Brings up two switches, a router and two nodes with bonded NICs in a guest kernel, attaches pods on
    /// both nodes through libcni, pings, shows the tagged frames at a switch, and lets the agent repair a
    /// node and announce a pod after a failover. Installs and builds what it needs first.
    Demo(demo::Options),
    /// Check formatting, lints, house rules and crates, then run every test
    ///
    /// Also checks that the oldest Rust of Cargo.toml builds it. Then runs the unit tests and the integration
    /// suites. Tests that need bonds or VLANs run in a guest kernel, all in one boot; the rest runs here, in
    /// network namespaces of its own.
    ///
    /// The last line says how many tests passed, failed and were skipped. A test that this kernel lets try
    /// nothing or not all is skipped, and a line "not tried: TEST: WHAT" names it.
    Test(test::Options),
    /// Try the DaemonSet on a real Kubernetes
    ///
    /// Starts a Kubernetes in namespaces of its own, a control plane and two nodes with containerd, kubelet
    /// and kube-proxy, applies deploy/base to it and tests what a cluster's operator relies on. It leaves no
    /// namespace or process on the machine. The first run builds Kubernetes 1.20 from Debian's source
    /// package, which takes some minutes and 2 GB below target/; 0.3 GB stay. Not part of `cargo xtask test`.
    ///
    /// The last line says how many steps passed, failed and were skipped.
    TestK8s,
    /// Time our plugins against the packaged reference plugins
    ///
    /// Times ADD and DEL of our plugins and of the reference plugins on the running kernel, run by run in
    /// turn, in namespaces of its own, and prints medians and ratios. Takes about three minutes.
    Bench {
        /// Time something else
        #[arg(value_name = "WHAT")]
        instead: Option<bench::Instead>,
    },
    /// Fuzz the configuration, the files of the address store, and what the kernel and other hosts send
    ///
    /// Begins with the inputs in fuzz/corpus, on the toolchain that runs this. Installs cargo-fuzz below
    /// target/ if there is none; libFuzzer takes a C++ compiler. What is found new goes to
    /// target/fuzz/corpus, an input that fails to target/fuzz/artifacts: put the latter into fuzz/corpus,
    /// where every run of the tests tries it.
    Fuzz(fuzz::Options),
    /// Simulate nodes that share address pools, for longer and in larger numbers than `cargo xtask test` does
    ///
    /// Runs many small worlds in virtual time, in which agents, nodes, clocks, disks and the store fail, and
    /// looks for addresses that have two pods or are lost. Then runs 10,000 nodes with a million
    /// addresses, and prints requests, dry ADDs, memory and time. VLAN_BRIDGE_SIM_SEED=N repeats a seed
    /// that failed, and prints its events.
    Sim(sim::Options),
    /// Check licences, duplicates and sources of all crates against deny.toml, as `cargo xtask test` does
    ///
    /// Installs cargo-deny below target/ first, which takes a minute or two.
    Deny {
        /// Check them against the database of known vulnerabilities too, which is fetched from its git host
        #[arg(long)]
        advisories: bool,
    },
    /// Build archives, images and sums to give away
    ///
    /// Builds the static binaries for x86_64 and aarch64 and puts into target/dist, for each: an archive with
    /// binaries, examples, manifests and documents, and an OCI image from scratch for `ctr image import` and
    /// `podman load`. A file .cdx.json names the crates in the binaries (CycloneDX). SHA256SUMS has the sums
    /// of all. The same binaries give the same bytes. An architecture other than this machine's is left out,
    /// with the reason, where the toolchain cannot have it.
    Dist,
    /// Make the files of a release, and say how to commit and tag it
    ///
    /// Makes a release of what CHANGELOG.md has under "Unreleased": checks all crates (`cargo xtask deny
    /// --advisories`), sets the version in Cargo.toml and the Cargo.lock files, dates the changelog, runs
    /// `cargo xtask dist`, and prints the git commands that commit and tag. Refuses a tree with changes, a
    /// version that is not newer than the last release, and a changelog with nothing to release. What fails
    /// later leaves the files as they were. It commits and pushes nothing.
    Release(release::Options),
    /// Draw the pictures of the documents again
    ///
    /// Writes docs/images: what `vlan-bridgectl status --watch` and `vlan-bridgectl topology -o svg` show of
    /// a bonded node with pods, in a guest kernel.
    Screenshots,
    /// Boot a guest kernel that has bonding and VLANs, and run a command in it
    ///
    /// Boots Debian's cloud kernel under emulation, with bonding, 802.1q, bridges and nftables. The exit code
    /// is the command's. The product's binaries are in $VLAN_BRIDGE_BIN, the reference plugins in $CNI_PEERS,
    /// the libcni client is $CNI_CLIENT. Nothing outlives the guest.
    Vm(vm::Options),
    /// Check the house rules that a program can check
    ///
    /// Prints each breach as FILE:LINE: MESSAGE. Files that are merely long are warned of.
    Tidy,
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Verb::Build => "build",
            Verb::Demo(_) => "demo",
            Verb::Test(_) => "test",
            Verb::TestK8s => "test-k8s",
            Verb::Bench { .. } => "bench",
            Verb::Fuzz(_) => "fuzz",
            Verb::Deny { .. } => "deny",
            Verb::Dist => "dist",
            Verb::Release(_) => "release",
            Verb::Screenshots => "screenshots",
            Verb::Sim(_) => "sim",
            Verb::Vm(_) => "vm",
            Verb::Tidy => "tidy",
        }
    }
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let name = verb.name();
    let outcome = match verb {
        Verb::Build => build::main(),
        Verb::Demo(options) => demo::main(&options),
        Verb::Test(options) => test::main(&options),
        Verb::TestK8s => test_k8s::main(),
        Verb::Bench { instead } => bench::main(instead.as_ref()),
        Verb::Fuzz(options) => fuzz::main(&options),
        Verb::Deny { advisories } => deny::main(advisories),
        Verb::Dist => dist::main(),
        Verb::Release(options) => release::main(&options),
        Verb::Screenshots => screenshots::main(),
        Verb::Sim(options) => sim::main(&options),
        Verb::Vm(options) => vm::main(options),
        Verb::Tidy => tidy::main(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("cargo xtask {name}: {error:#}");
        ExitCode::FAILURE
    })
}
