//! Versions of the store's values, and the compare-and-swap on them.

use std::sync::Arc;

/// The version of a value: etcd's `mod_revision`, Kubernetes' `resourceVersion`. Only equality means
/// something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(Option<Arc<str>>);

impl Version {
    /// The version of a value that does not exist.
    pub const ABSENT: Version = Version(None);

    /// The version that the store calls so.
    pub fn new(text: &str) -> Version {
        Version(Some(text.into()))
    }

    /// What the store calls it. None if the value does not exist.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// The answer to a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Swap<T> {
    /// Written. The value has this version now.
    Done(Version),
    /// Not written, and never will be: this is the value instead.
    Lost(Version, T),
    /// No answer: it was written, or was not, or may still be. No read tells (rule 3).
    Unknown,
}
