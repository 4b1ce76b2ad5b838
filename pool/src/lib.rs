//! Shared address pools: the values in the store, and the protocol by which nodes claim addresses and give
//! them back. Pure: no input, no output, no clock. The agent and the tests' search and simulator drive the
//! same code.

pub mod agent;
pub mod block;
pub mod document;
pub mod entry;
pub mod grants;
pub mod history;
pub mod hunt;
pub mod membership;
pub mod name;
pub mod network;
pub mod plan;
pub mod register;
mod rules;
pub mod runs;
#[cfg(test)]
mod search;
pub mod stock;
pub mod suspicion;
pub mod value;
pub mod version;
pub mod water;
