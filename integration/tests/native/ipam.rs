//! The IPAM plugin alone, with its own store, and host-local on the same store.

pub(crate) mod choice;
pub(crate) mod damage;
pub(crate) mod dead;
pub(crate) mod disk;
pub(crate) mod errors;
pub(crate) mod flat;
pub(crate) mod kill;
pub(crate) mod links;
pub(crate) mod lock;
pub(crate) mod machines;
pub(crate) mod model;
pub(crate) mod operator;
pub(crate) mod pool;
pub(crate) mod reboot;
pub(crate) mod roll;
pub(crate) mod storm;

use integration::{Call, Node, Outcome, Plugin, run_with};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub const NETWORK: &str = "vlan136";

/// A node that only runs IPAM plugins.
pub struct Ipam {
    pub node: Node,
    ipam: Value,
}

impl Ipam {
    /// With these keys in the section `ipam`.
    pub fn new(ipam: Value) -> Ipam {
        Ipam { node: Node::new("ipam"), ipam }
    }

    /// With addresses from 10.1.0.2 to 10.1.0.`last`.
    pub fn until(last: u8) -> Ipam {
        Ipam::new(json!({"subnet": "10.1.0.0/24", "rangeEnd": format!("10.1.0.{last}")}))
    }

    /// The same store under another configuration.
    pub fn with(self, ipam: Value) -> Ipam {
        Ipam { ipam, ..self }
    }

    /// A call of our plugin.
    pub fn plugin(&self) -> Plugin<'_> {
        self.of("vlan-bridge-ipam")
    }

    /// A call of host-local, for the same network.
    pub fn host_local(&self) -> Plugin<'_> {
        self.of("host-local")
    }

    fn of(&self, name: &str) -> Plugin<'_> {
        let mut ipam = self.ipam.clone();
        ipam["type"] = name.into();
        self.node.plugin(&self.node.list(NETWORK, &[json!({"type": name, "ipam": ipam})]))
    }

    /// The folder of the leases.
    pub fn store(&self) -> PathBuf {
        self.node.data_dir().join(NETWORK)
    }

    /// The folder of our records and tables.
    pub fn side(&self) -> PathBuf {
        self.node.data_dir().join(".vlan-bridge").join(NETWORK)
    }

    /// The holder of each address.
    #[track_caller]
    pub fn leases(&self) -> BTreeMap<String, String> {
        let read = |addr: &String| fs::read_to_string(self.store().join(addr)).unwrap();
        self.node.leases(NETWORK).into_iter().map(|addr| (addr.clone(), read(&addr))).collect()
    }

    /// The names of our records, sorted.
    pub fn records(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.side().join("owners")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes so many leases in host-local's form, from 10.1.0.2 on.
    pub fn crowd(&self, count: u32) {
        self.node.hold(NETWORK, Ipv4Addr::new(10, 1, 0, 2), count);
    }
}

/// Runs a call in our own mount namespace, as a runtime does. [`Call::run`] gives each call its own.
#[track_caller]
pub fn here(call: &Call<'_>) -> Outcome {
    run_with(&mut call.bare_command(), call.input())
}
