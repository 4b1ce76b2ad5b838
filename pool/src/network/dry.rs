//! Why an ADD that waits gets no address now.

use std::fmt;
use std::net::IpAddr;

use crate::entry::Entry;
use crate::name::Name;
use crate::plan::Me;
use crate::stock::Stopped;

/// Why nothing is there for an ADD. Its text is for the plugin's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dry {
    /// Where the network looked no address is free.
    NoneFree {
        /// The pool's addresses in the blocks that it knows.
        seen: u32,
        /// Those of them that are not free.
        taken: u32,
        /// How many nodes are asked for idle ones now.
        asked: u32,
    },
    /// The network holds as many as it may (`pool.max`).
    Most(u32),
    /// An operator has frozen the pool.
    Frozen,
    /// The store went back to an older state.
    Recovering,
    /// The store does not answer.
    NoAnswer,
    /// Another machine has this node's name.
    Refused,
    /// Other nodes wrote the same block each time.
    Overtaken,
    /// The node could not write its files.
    NotStored,
    /// This release cannot read a block's value.
    Unreadable,
    /// The requested address is none of the pool's.
    NotInPool(IpAddr),
    /// A network of this node holds the requested address. It is asked to give it back if it is idle.
    Held(IpAddr, Name),
    /// The requested address is kept for this node or workload.
    Kept(IpAddr, Name),
    /// A pod may still use the requested address, and this node may not take it.
    Suspect(IpAddr),
}

impl Dry {
    /// Why a claim was not written.
    pub(super) fn of(stopped: Stopped) -> Dry {
        match stopped {
            Stopped::NoAnswer => Dry::NoAnswer,
            Stopped::NotStored => Dry::NotStored,
            Stopped::Overtaken => Dry::Overtaken,
            Stopped::Unreadable => Dry::Unreadable,
        }
    }

    /// Why a requested address was not claimed, and the node that may give it back.
    pub(super) fn of_entry(addr: IpAddr, entry: &Entry, me: &Me) -> (Dry, Option<Name>) {
        match entry {
            Entry::Granted(by) | Entry::Home(by) | Entry::Unproven { by, .. } => {
                let other = (!me.is(by)).then(|| by.node.clone());
                (Dry::Held(addr, by.node.clone()), other)
            }
            Entry::Reserved(of) | Entry::Slice(of) => (Dry::Kept(addr, of.clone()), None),
            Entry::Suspect { .. } => (Dry::Suspect(addr), None),
        }
    }
}

impl fmt::Display for Dry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dry::NoneFree { seen, taken, asked } => {
                write!(f, "{taken} of {seen} addresses are taken, nodes asked for idle ones: {asked}")
            }
            Dry::Most(most) => write!(f, "this node has {most} addresses of it, as many as max allows"),
            Dry::Frozen => write!(f, "an operator has frozen it"),
            Dry::Recovering => {
                write!(f, "its store went back to an older state, and it waits for an operator")
            }
            Dry::NoAnswer => write!(f, "the store does not answer"),
            Dry::Refused => write!(f, "another machine has this node's name"),
            Dry::Overtaken => write!(f, "other nodes take addresses at the same time"),
            Dry::NotStored => write!(f, "the node cannot write its grants"),
            Dry::Unreadable => write!(f, "this release cannot read all of it"),
            Dry::NotInPool(addr) => write!(f, "{addr} is none of its addresses"),
            Dry::Held(addr, node) => write!(f, "{addr} is held by node {node}"),
            Dry::Kept(addr, name) => write!(f, "{addr} is kept for {name}"),
            Dry::Suspect(addr) => write!(f, "{addr} may still be used by a lost node"),
        }
    }
}
