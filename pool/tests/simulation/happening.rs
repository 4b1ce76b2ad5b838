//! What can happen.

use std::time::Duration;

use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::grants::Grants;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;
use vlan_bridge_pool::register::{Identity, Register};
use vlan_bridge_pool::stock;
use vlan_bridge_pool::version::Version;

/// Where something happens: the node, and which of its agents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) node: usize,
    pub(crate) life: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// What an agent does or hears.
    Agent(At, Agents),
    /// A request comes to the store. `Option`: the answer's number, if one is sent.
    Arrives(At, Ask, Option<u64>),
    /// The agent is told what the plugin's store says, and perhaps that another node asks for addresses.
    Report(usize, usize, Option<Recall>),
    /// The agent starts, unless another one has.
    Start(At),
    /// The agent of a node is stopped no longer.
    Resumes(usize),
    /// The node boots.
    Boot(usize),
    /// A pod's next step.
    Pod(u64, Step),
    /// Another pod begins somewhere.
    NewPod,
    /// A pod begins on this node's network.
    Begin(usize, usize),
    /// Each agent looks at the plugin's stores.
    Timer(usize),
    Misfortune,
    /// The agent of a node hears that documents changed, or connects to the store again.
    Documents(usize),
    /// The operator looks at the pools.
    Operator,
}

#[derive(Clone, Debug)]
pub(crate) enum Agents {
    Time(Duration),
    Hears(Event),
    /// The answer to a question, None if it does not come.
    Answer(u64, Option<Box<Word>>),
    Grants(usize, Grants),
    Identity(Identity),
    /// The grants of a network, or the identity, are synced.
    Synced(Option<usize>),
    Lock(usize, stock::Action),
}

/// What the store says.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// Which store, and its revision.
    pub(crate) at: (u64, u64),
    /// The pools' documents, if they were asked for.
    pub(crate) documents: Option<Vec<Document>>,
    pub(crate) event: Event,
}

/// A request to the store.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Own,
    SwapOwn(Version, Register),
    Look(Name),
    Read(usize, BlockKey),
    Swap(usize, BlockKey, Version, Block),
    List(usize),
    Recover(usize, u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// It looks for an address.
    Look,
    /// It waited for long enough.
    GivesUp,
    /// It hears who answered the probe.
    Probed,
    /// It writes the lease.
    Links,
    /// The ADD ends.
    Runs,
    /// DEL.
    Ends,
}
