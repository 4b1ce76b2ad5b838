//! Writes stdout: one document, or nothing.
//!
//! If stdout is closed when the process starts, the standard library opens /dev/null in its place, and
//! writes vanish without an error. This module records the state before that happens.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before `main`, and before the standard library opens /dev/null.
// SAFETY: the C library calls every function in this section once, before any thread exists. This one makes
// one system call.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD_STATE: extern "C" fn() = record_state;

extern "C" fn record_state() {
    const STDOUT: RawFd = 1;
    // SAFETY: the descriptor is borrowed for one system call, which fails if it is closed.
    let stdout = unsafe { BorrowedFd::borrow_raw(STDOUT) };
    WAS_CLOSED.store(stdout.try_clone_to_owned().is_err(), Ordering::Relaxed);
}

/// Fails if stdout was closed when the process started.
pub(crate) fn check() -> io::Result<()> {
    match WAS_CLOSED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("it was closed when the process started")),
        false => Ok(()),
    }
}

/// Writes a document and a newline.
pub(crate) fn print(document: &Value) -> io::Result<()> {
    check()?;
    let mut text = document.to_string();
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
