//! What any kernel with network namespaces can show: no bond, no VLAN.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod attached;
mod bridge;
mod failure;
mod frames;
mod kill;
mod rig;
mod takeover;
mod teardown;
mod uplink;
