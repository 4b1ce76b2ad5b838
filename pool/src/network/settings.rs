//! What a network is configured to do.

use crate::document::{Document, PoolState};
use crate::runs::Runs;
use crate::water::Marks;

/// What one network is configured to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The addresses that the pool has for this network: its ranges without what is excluded.
    pub range: Runs,
    /// How many addresses are kept in stock.
    pub marks: Marks,
    /// Whether idle home addresses are given to others who ask.
    pub lends_home: bool,
    /// Whether the pool lets nodes claim. What they have they keep, settle and give back all the same.
    pub state: PoolState,
    /// The pool's identity.
    pub id: String,
    /// How often the pool's store was found to have gone back.
    pub restored: u32,
}

impl Settings {
    /// What the pool's document and the node's configuration say.
    pub fn of(document: &Document, marks: Marks, lends_home: bool) -> Settings {
        let Document { id, state, restored, .. } = document.clone();
        Settings { range: document.addresses(), marks, lends_home, state, id, restored }
    }
}
