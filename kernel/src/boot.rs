//! The time since the boot (`CLOCK_BOOTTIME`, clock_gettime(2)), which `/proc/uptime` shows too.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the boot, with the time in which the machine was suspended. Zero if there is no such clock.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
