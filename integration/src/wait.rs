//! Waiting, with a deadline.

use std::time::{Duration, Instant};

/// Repeats `condition` until it holds. Panics with `what` after `limit`.
///
/// No test sleeps anywhere else. A test waits for a condition, never for a time.
#[track_caller]
pub fn poll(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    // The pause is short at first, for a condition that soon holds. Later it grows, to leave the processor to
    // others.
    let mut pause = Duration::from_millis(1);
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits for a time, for a benchmark with pauses between calls.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
