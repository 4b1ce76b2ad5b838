//! The boot of the machine, and the time since it began.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kernel::open;

/// The boot's identity and the time since it began. Durations use this time, so setting the clock, or a start
/// in 1970, has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootTime {
    /// `/proc/sys/kernel/random/boot_id`. Empty if it cannot be read. Then everything counts as written in
    /// this boot.
    pub(crate) boot: String,
    /// Tenths of a second since the boot began (`/proc/uptime`).
    pub(crate) uptime: u32,
}

impl BootTime {
    /// The current time.
    pub(crate) fn now() -> BootTime {
        let boot = read("/proc/sys/kernel/random/boot_id").unwrap_or_else(|error| {
            log::warn!("cannot read the boot id: {error}; addresses of an earlier boot are kept");
            String::new()
        });
        let uptime = read("/proc/uptime").ok().and_then(|text| tenths(&text)).unwrap_or(0);
        BootTime { boot: boot.trim().to_owned(), uptime }
    }

    /// Whether `boot` is an earlier boot.
    pub(crate) fn is_after(&self, boot: &str) -> bool {
        !self.boot.is_empty() && !boot.is_empty() && self.boot != boot
    }
}

fn read(path: &str) -> io::Result<String> {
    const MOST: u64 = 4096;
    Ok(String::from_utf8_lossy(&open::read(Path::new(path), MOST)?).into_owned())
}

/// Seconds since 1970 by the machine's clock, only for display.
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
