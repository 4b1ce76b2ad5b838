//! Tests for any kernel with network namespaces, without bonds and VLANs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent;
mod api_server;
mod at_once;
mod attached;
mod bridge;
mod chaining;
mod check;
mod cnitool;
mod conflict;
mod doctor;
mod etcd;
mod examples;
mod failure;
mod forward_rule;
mod frames;
mod guard;
mod host_access;
mod input;
mod install;
mod ipam;
mod kill;
mod lock;
mod mac;
mod migration;
mod nat;
mod one_process;
mod pool;
mod pool_verbs;
mod ports;
mod rename;
mod repair;
mod results;
mod rig;
mod runtimes;
mod single_plugin;
mod stdout;
mod takeover;
mod teardown;
mod topology;
mod uplink;
mod versions;
mod watch;
