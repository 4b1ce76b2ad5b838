//! What one file configures for interfaces.

use std::path::{Path, PathBuf};

use super::device::{Applies, Condition, Device, Property};

/// The name of systemd-networkd in [`Definition::program`].
pub(super) const NETWORKD: &str = "systemd-networkd";

/// How far a program manages an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Management {
    /// Not at all.
    None,
    /// It manages the interface as a port or member, and keeps its master.
    KeepsMaster,
    /// Fully.
    Whole,
}

/// A file's configuration for some interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The program.
    pub(crate) program: &'static str,
    /// The file.
    pub(crate) path: PathBuf,
    /// The conditions of the interfaces. All must hold.
    pub(super) conditions: Vec<Condition>,
    /// Whether it gives the interface addresses, statically or with DHCP or router advertisements.
    pub(crate) addresses: bool,
    pub(crate) management: Management,
    /// The name of the NetworkManager profile.
    pub(crate) profile: Option<String>,
}

impl Definition {
    /// A definition for an interface by its name.
    pub(super) fn named(program: &'static str, path: &Path, name: &str, addresses: bool) -> Definition {
        let conditions = vec![Condition { property: Property::Name, patterns: vec![name.to_owned()] }];
        Definition {
            program,
            path: path.to_owned(),
            conditions,
            addresses,
            management: Management::Whole,
            profile: None,
        }
    }

    /// Whether it applies to an interface.
    pub(crate) fn matches(&self, device: &Device) -> Applies {
        self.conditions.iter().map(|condition| condition.evaluate(device)).min().unwrap_or(Applies::No)
    }

    /// Whether it names an interface without a pattern.
    pub(crate) fn names(&self, interface: &str) -> bool {
        let is_name =
            |condition: &Condition| condition.property == Property::Name && condition.patterns == [interface];
        self.conditions.iter().any(is_name)
    }

    /// Whether it is a .network file of systemd-networkd.
    pub(crate) fn is_networkd_network(&self) -> bool {
        self.program == NETWORKD && self.path.extension().is_some_and(|ending| ending == "network")
    }
}
