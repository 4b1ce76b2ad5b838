//! The parts of the CNI protocol that every plugin shares.

pub mod args;
pub mod command;
pub mod env;
pub mod error;
pub mod mac;
pub mod result;
pub mod version;
