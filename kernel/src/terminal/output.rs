//! Stdout that may take nothing more: a terminal that is stopped (Ctrl-S), a pipe that is full. A thread
//! writes to it, so its program goes on to obey keys and signals.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cni_skel::terminal_output;

/// A thread that writes to stdout. It ends with the process.
#[derive(Clone, Debug)]
pub struct OutputThread {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    /// What comes next.
    waiting: Vec<u8>,
    /// Something is being written.
    is_writing: bool,
    /// Why nothing can be written any more.
    error: Option<io::Error>,
}

impl OutputThread {
    /// Starts the thread. It inherits the signals that the calling thread blocks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start() -> io::Result<OutputThread> {
        // Not the buffer of stdout, whose lock would be held all the time.
        let stdout = File::from(terminal_output().as_fd().try_clone_to_owned()?);
        let output = OutputThread { shared: Arc::default() };
        let shared = Arc::clone(&output.shared);
        thread::Builder::new().name("output".into()).spawn(move || shared.work(stdout))?;
        Ok(output)
    }

    /// Writes these bytes after those that wait. Does not wait itself.
    ///
    /// # Errors
    /// An earlier write failed.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.change(|waiting| waiting.extend_from_slice(bytes))
    }

    /// Writes these bytes instead of those that wait. Does not wait itself.
    ///
    /// # Errors
    /// An earlier write failed.
    pub fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        self.change(|waiting| *waiting = bytes.to_vec())
    }

    /// Waits until all is written, for this long at most. False if something is not.
    ///
    /// # Errors
    /// A write failed.
    pub fn finish(&self, limit: Duration) -> io::Result<bool> {
        let is_busy = |state: &mut OutputState| state.is_writing || !state.waiting.is_empty();
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), limit, is_busy);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.error.take().map_or(Ok(!waited.timed_out()), Err)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.shared.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        change(&mut state.waiting);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut stdout: File) {
        loop {
            let waits = |state: &mut OutputState| state.waiting.is_empty();
            let waited = self.changed.wait_while(self.lock(), waits);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let bytes = std::mem::take(&mut state.waiting);
            state.is_writing = true;
            drop(state);
            let written = stdout.write_all(&bytes);
            let mut state = self.lock();
            state.is_writing = false;
            state.error = written.err();
            self.changed.notify_all();
        }
    }
}
