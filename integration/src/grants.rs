//! The files by which a node's agent tells the IPAM plugin what a shared pool grants, written by a test.

use crate::Node;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vlan_bridge_pool::block::BlockKey;
use vlan_bridge_pool::grants::{Confirmation, Grants};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::runs::Runs;

/// The agent's files of one range set on one node.
#[derive(Debug)]
pub struct GrantFiles<'a> {
    /// The node.
    pub node: &'a Node,
    /// The network.
    pub network: &'a str,
    /// The index of the range set.
    pub set: usize,
}

impl GrantFiles<'_> {
    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        let name = if self.set == 0 { name.to_owned() } else { format!("{name}.{}", self.set) };
        self.node.data_dir().join(".vlan-bridge").join(self.network).join(name)
    }

    fn write(&self, name: &str, content: &Value) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }

    /// Grants these addresses, each a single one or `FIRST-LAST`.
    pub fn grant(&self, home: &[&str], leased: &[&str], unproven: &[&str]) {
        let name = |name: &str| Name::new(name).unwrap();
        let holder =
            if self.set == 0 { self.network.to_owned() } else { format!("{}.{}", self.network, self.set) };
        let (home, leased) = (runs(home), runs(leased));
        let blocks = home.iter().chain(leased.iter()).map(BlockKey::of).collect();
        let grants = Grants {
            pool: name("pool"),
            pool_id: "00112233445566778899aabbccddeeff".into(),
            node: name("node-1"),
            network: name(&holder),
            epoch: 1,
            restored: 0,
            generation: 1,
            home,
            leased,
            unproven: runs(unproven),
            blocks,
        };
        self.write("grants", &grants.to_json());
    }

    /// Confirms the grants in this boot.
    pub fn confirm(&self) {
        self.confirm_in(fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    }

    /// Confirms the grants in some boot, without end.
    pub fn confirm_in(&self, boot: &str) {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (boot, sent_at) = (boot.to_owned(), Duration::ZERO);
        let confirmation = Confirmation { epoch: 1, boot, sent_at, sent_at_clock: clock, give_for: None };
        self.write("confirmation", &confirmation.to_json());
    }
}

fn runs(texts: &[&str]) -> Runs {
    let mut runs = Runs::EMPTY;
    texts.iter().for_each(|text| runs.insert_text(text).unwrap());
    runs
}
