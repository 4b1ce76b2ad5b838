//! stdout: one document, or nothing. Where it was closed before we were started, the standard library puts
//! /dev/null in its place, and what is written is lost without an error; so this looks before it does.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before `main`, and before what the standard library does there.
// SAFETY: the C library calls every function in this section once, before any thread is there; this one makes
// one system call.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    const STDOUT: RawFd = 1;
    // SAFETY: it is borrowed for one system call, which fails where the descriptor is closed.
    let stdout = unsafe { BorrowedFd::borrow_raw(STDOUT) };
    WAS_CLOSED.store(stdout.try_clone_to_owned().is_err(), Ordering::Relaxed);
}

/// That there is a stdout.
pub(crate) fn check() -> io::Result<()> {
    match WAS_CLOSED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("it is closed")),
        false => Ok(()),
    }
}

/// Writes a document.
pub(crate) fn print(document: &Value) -> io::Result<()> {
    check()?;
    let mut text = document.to_string();
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
