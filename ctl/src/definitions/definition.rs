//! What one file says about interfaces.

use std::path::{Path, PathBuf};

use super::device::{About, Device, Property, Test};

/// The name of systemd-networkd in [`Definition::program`].
pub(super) const NETWORKD: &str = "systemd-networkd";

/// How far a program has an interface in its care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// It is told to leave it alone.
    None,
    /// It leaves it in its bridge or bond, or puts it into one.
    KeepsMaster,
    /// It has all of it.
    Whole,
}

/// One program's word on some interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The program.
    pub(crate) program: &'static str,
    /// The file.
    pub(crate) path: PathBuf,
    /// Which interfaces: those of which all of these hold.
    pub(super) tests: Vec<Test>,
    /// Whether it gives the interface addresses, or has it ask for some.
    pub(crate) addresses: bool,
    pub(crate) care: Care,
    /// What NetworkManager calls it.
    pub(crate) profile: Option<String>,
}

impl Definition {
    /// One of an interface by name.
    pub(super) fn named(program: &'static str, path: &Path, name: &str, addresses: bool) -> Definition {
        let tests = vec![Test { property: Property::Name, patterns: vec![name.to_owned()] }];
        Definition { program, path: path.to_owned(), tests, addresses, care: Care::Whole, profile: None }
    }

    /// Whether it is about an interface.
    pub(crate) fn is_about(&self, device: &Device) -> About {
        self.tests.iter().map(|test| test.judge(device)).min().unwrap_or(About::No)
    }

    /// Whether it names an interface, and no pattern.
    pub(crate) fn names(&self, interface: &str) -> bool {
        let is_name = |test: &Test| test.property == Property::Name && test.patterns == [interface];
        self.tests.iter().any(is_name)
    }

    /// Whether it is one of systemd-networkd's that say what happens to an interface.
    pub(crate) fn is_networkds(&self) -> bool {
        self.program == NETWORKD && self.path.extension().is_some_and(|ending| ending == "network")
    }
}
