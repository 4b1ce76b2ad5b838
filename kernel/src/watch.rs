//! Sockets that are read when they have something, without a thread that waits.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a socket is waited for: something to read, which may be an error.
pub(crate) const RECEIVED: Interest = Interest::READABLE.add(Interest::ERROR);

/// Registers a nonblocking socket with the current runtime, for reading.
pub(crate) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd returns the same descriptor each time, and keeps it open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, RECEIVED) }?)
}
