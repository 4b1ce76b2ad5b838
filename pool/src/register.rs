//! The register of a node: which machine it is, and under which epoch it holds addresses.

use crate::name::Name;

/// The value of a node's register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// The machine: a number that its agent drew at its first start. Names are given to other machines, and
    /// cloned images share the machine's id.
    pub instance: String,
    /// The boot that wrote the register. Two boots that write in turn are a machine and its clone.
    pub boot: String,
    /// Goes up whenever the node begins anew. Entries of blocks name it.
    pub epoch: u32,
    /// Goes up with each write by the node. A store that was restored shows an older one.
    pub seq: u64,
    /// What others may assume.
    pub state: State,
}

/// What others may assume of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It gives its addresses to pods.
    Live,
    /// Somebody had evidence that it is lost: its leased addresses become suspect after the wait.
    Lost {
        /// Who said so.
        by: Name,
    },
    /// An operator said that it is off for good: its home addresses become suspect too.
    Gone {
        /// Who said so.
        by: Name,
    },
}

impl Register {
    /// Whether the node lives under this epoch.
    pub fn lives(&self, epoch: u32) -> bool {
        self.epoch == epoch && self.state == State::Live
    }
}

/// What this machine knows of its register: what it wrote last. The file is on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// See [`Register::instance`].
    pub instance: String,
    /// The epoch written last. 0 before the first.
    pub epoch: u32,
    /// The sequence number written last.
    pub seq: u64,
}
