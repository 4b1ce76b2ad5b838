//! Waiting, with a deadline.

use std::time::{Duration, Instant};

/// Asks again and again until `condition` holds; panics, naming `what`, when `limit` passes first.
///
/// No test sleeps otherwise: it waits for what it needs, never for a time.
#[track_caller]
pub fn poll(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    // Short at first for what is nearly there, longer later to leave the processor to those we wait for.
    let mut pause = Duration::from_millis(1);
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits for a time: for a bench that plays calls with pauses between them.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
