//! Names that no two tests share. Each contains the process ID of its owner.

use std::sync::atomic::{AtomicU32, Ordering};

/// The prefix of every name.
const PREFIX: &str = "vlbr";

/// A name for a namespace, a container or a folder: `vlbr-<pid>-<count>-<role>`.
pub(crate) fn unique(role: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}-{}-{count}-{role}", std::process::id())
}

/// Whether the name has our prefix and the process that chose it is gone.
pub(crate) fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-');
    parts.next() == Some(PREFIX)
        && parts
            .next()
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_know_their_owner() {
        let (a, b) = (unique("node"), unique("node"));
        assert_ne!(a, b);
        assert!(!is_stale(&a) && !is_stale("eth0") && !is_stale("vlbr-x-1-node"));
        // No process has the highest id that the kernel can be set to.
        assert!(is_stale("vlbr-4194305-1-node"));
    }
}
