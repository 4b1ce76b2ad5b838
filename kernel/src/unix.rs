//! Unix sockets (unix(7)).

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Connects to a stream socket's file, and closes the connection. Does not wait: if the queue of the process
/// that listens there is full, the error is `WouldBlock`.
///
/// # Errors
/// Nobody listens, or nobody takes another connection.
pub fn try_connect(path: &Path) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}
