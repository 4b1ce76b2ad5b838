//! What any kernel with network namespaces can show: no bond, no VLAN.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod at_once;
mod attached;
mod bridge;
mod chaining;
mod chaining_dhcp;
mod chaining_ipam;
mod check;
mod check_gc;
mod check_status;
mod conflict;
mod failure;
mod frames;
mod input;
mod input_bridge;
mod input_environment;
mod input_ipam;
mod input_node;
mod input_tolerated;
mod ipam;
mod ipam_choice;
mod ipam_dead;
mod ipam_flat;
mod ipam_kill;
mod ipam_operator;
mod ipam_reboot;
mod ipam_roll;
mod kill;
mod lock;
mod regression;
mod regression_check;
mod results;
mod rig;
mod runtimes;
mod takeover;
mod teardown;
mod uplink;
mod versions;
