//! The boot of the machine, and the time since it began.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use kernel::{open, since_boot};

/// The boot's identity and the time since it began. Durations use this time, so setting the clock, or a start
/// in 1970, has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootTime {
    /// `/proc/sys/kernel/random/boot_id`. Empty if it cannot be read. Then everything counts as written in
    /// this boot.
    pub(crate) boot: String,
    /// Tenths of a second since the boot began.
    pub(crate) uptime: u32,
}

impl BootTime {
    /// The current time.
    pub(crate) fn now() -> BootTime {
        // A process lives in one boot.
        static BOOT: OnceLock<String> = OnceLock::new();
        let boot = BOOT.get_or_init(|| {
            read("/proc/sys/kernel/random/boot_id").unwrap_or_else(|error| {
                log::warn!("cannot read the boot id: {error}; addresses of an earlier boot are kept");
                String::new()
            })
        });
        BootTime { boot: boot.clone(), uptime: uptime() }
    }

    /// Whether `boot` is an earlier boot.
    pub(crate) fn is_after(&self, boot: &str) -> bool {
        !self.boot.is_empty() && !boot.is_empty() && self.boot != boot
    }
}

fn read(path: &str) -> io::Result<String> {
    const MOST: u64 = 4096;
    Ok(String::from_utf8_lossy(&open::read(Path::new(path), MOST)?).trim().to_owned())
}

/// The time since the boot, in tenths of a second.
pub fn uptime() -> u32 {
    u32::try_from(since_boot().as_millis() / 100).unwrap_or(u32::MAX)
}

/// Seconds since 1970 by the machine's clock, only for display.
pub(crate) fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Earlier releases read the time there.
    #[test]
    fn the_time_is_that_of_proc_uptime() {
        let tenths = || {
            let text = read("/proc/uptime").unwrap();
            let seconds: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
            (seconds * 10.0) as u32
        };
        let (before, now, after) = (tenths(), uptime(), tenths());
        assert!((before.saturating_sub(1)..=after + 1).contains(&now), "{before} {now} {after}");
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
