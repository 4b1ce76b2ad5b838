//! The fuzz targets: one function for each, which panics if something is wrong.
//!
//! `cargo xtask fuzz` runs them with libFuzzer. A normal test runs them on the inputs in `corpus/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a target fails by panicking"
)]

mod announcements;
mod configuration;
mod frames;
mod pool;
mod store;

pub use announcements::announcements;
pub use configuration::configuration;
pub use frames::frames;
pub use pool::pool;
pub use store::store;

/// A target.
pub type Target = fn(&[u8]);

/// Every target, with the name of its program and of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 5] = [
    ("announcements", announcements),
    ("configuration", configuration),
    ("frames", frames),
    ("pool", pool),
    ("store", store),
];
