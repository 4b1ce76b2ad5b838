//! Tests that need bonds and VLANs. `cargo xtask test` runs them in a guest kernel, or natively with
//! `--native`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent;
mod attach;
mod boundary;
mod clock;
mod concurrent;
mod conflict;
mod doctor;
mod doctor_breakages;
mod dummies;
mod examples;
mod failover;
mod gone_nodes;
mod guard;
mod mac;
mod nat;
mod neighbours;
mod paths;
mod repair;
mod rig;
mod runtime;
mod services;
mod slice;
mod snooping;
mod status;
mod topology;
mod traffic;
mod trunk;
mod uplink;
mod vlan_gateway;
