//! Signals that end a program, read like a socket (signalfd(2)).

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

/// SIGTERM and SIGINT, which end nothing by themselves any more.
#[derive(Debug)]
pub struct EndSignals {
    descriptor: AsyncFd<SignalFd>,
}

impl EndSignals {
    /// Blocks the signals for the calling thread and for all threads that it starts from now on.
    pub fn open() -> io::Result<EndSignals> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // SAFETY: a SignalFd returns the same descriptor each time, and keeps it open until it is dropped.
        Ok(EndSignals { descriptor: unsafe { AsyncFd::register(descriptor) }? })
    }

    /// Waits for one of the signals.
    pub async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            match ready.get_inner().read_signal() {
                Ok(Some(_)) => return Ok(()),
                Ok(None) | Err(Errno::EAGAIN | Errno::EINTR) => ready.clear_ready(),
                Err(e) => return Err(e.into()),
            }
        }
    }
}
