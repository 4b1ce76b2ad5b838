//! What a round asks for, what becomes of it, and how the round ends.

use crate::block::{Block, BlockKey};
use crate::grants::Grants;
use crate::runs::Runs;
use crate::version::{Swap, Version};

/// What to do next. Each is answered by one [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Write the grants to the disk, and sync file and folder.
    Store(Grants),
    /// Under the network's lock: offer no address of this block that is not granted, and find which of its
    /// addresses have a lease though they are not granted.
    Inspect(BlockKey),
    /// Read the block. What was seen earlier may be returned as well: a write that depends on it fails.
    Read(BlockKey),
    /// Write the block if it still has this version.
    Swap(BlockKey, Version, Block),
    /// Under the network's lock: offer these addresses, unless they have a lease.
    Offer(Runs),
}

/// What became of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The grants are on the disk.
    Stored,
    /// They are not, or nobody knows. These are what a reader finds now.
    NotStored(Grants),
    /// These have a lease and are not granted.
    Inspected(Runs),
    /// The block's version and value.
    Read(Version, Block),
    /// This release cannot read the block's value. If the block was to be written, it is not.
    Unreadable,
    /// The answer to a write.
    Swapped(Swap<Block>),
    /// The addresses are offered.
    Offered,
    /// The action could not be done, and nothing is changed.
    Failed,
}

/// How a round ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ended {
    /// Whether everything was done that could be.
    pub whole: bool,
    /// Addresses that pods can get now.
    pub gained: Runs,
    /// Addresses that pods use and that the store grants to somebody else. None if the leases were not looked
    /// at.
    pub fenced: Option<Runs>,
    /// The block as it is now, if it was read.
    pub block: Option<Block>,
    /// Why not everything was done.
    pub stopped: Option<Stopped>,
}

/// Why a round stopped half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stopped {
    /// The store did not answer.
    NoAnswer,
    /// The node could not write its files, or look into them.
    NotStored,
    /// Another node wrote the block first, each time.
    Overtaken,
    /// This release cannot read the block's value.
    Unreadable,
}

/// What a step asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Do this and tell the outcome.
    Do(Action),
    /// The round has ended.
    End(Ended),
}
