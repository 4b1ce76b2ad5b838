//! What CHECK says of differences from what ADD left.

use std::fmt::Display;

/// Adds to a difference what restores it.
pub fn repairable(difference: impl Display) -> String {
    format!("{difference}; vlan-bridgectl repair restores it")
}
