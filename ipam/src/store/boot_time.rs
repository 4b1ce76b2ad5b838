//! When we are: which boot of the machine, and how long into it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The boot's identity and the time since it began. Durations are taken from the latter: a clock that is set,
/// and a machine that starts in 1970, change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootTime {
    /// `/proc/sys/kernel/random/boot_id`; empty when it cannot be read, and then nothing counts as of another
    /// boot.
    pub(crate) boot: String,
    /// Tenths of a second since the boot began (`/proc/uptime`).
    pub(crate) uptime: u32,
}

impl BootTime {
    /// The present one.
    pub(crate) fn now() -> BootTime {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_else(|error| {
            log::warn!("cannot read the boot id: {error}; addresses of an earlier boot are kept");
            String::new()
        });
        let uptime = fs::read_to_string("/proc/uptime").ok().and_then(|text| tenths(&text)).unwrap_or(0);
        BootTime { boot: boot.trim().to_owned(), uptime }
    }

    /// Whether something written in `boot` was written before this boot.
    pub(crate) fn is_after(&self, boot: &str) -> bool {
        !self.boot.is_empty() && !boot.is_empty() && self.boot != boot
    }
}

/// Seconds since 1970 by the machine's clock, for people to read. Nothing is decided by it.
pub(crate) fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `12345.67 …` in tenths of a second.
fn tenths(uptime: &str) -> Option<u32> {
    let (seconds, fraction) = uptime.split_whitespace().next()?.split_once('.')?;
    let tenth = fraction.get(..1)?.parse::<u32>().ok()?;
    seconds.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_uptime() {
        assert_eq!(tenths("12345.67 1.0\n"), Some(123_456));
        assert_eq!(tenths("0.00 0.00"), Some(0));
        assert_eq!(tenths("nonsense"), None);
        assert_eq!(tenths("99999999999.00 1"), None);
    }

    #[test]
    fn an_unknown_boot_is_no_other_boot() {
        let boot_time = |boot: &str| BootTime { boot: boot.into(), uptime: 0 };
        assert!(boot_time("b").is_after("a"));
        assert!(!boot_time("b").is_after("b"));
        assert!(!boot_time("").is_after("a"));
        assert!(!boot_time("b").is_after(""));
    }
}
