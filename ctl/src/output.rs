//! Stdout for results, and stderr for messages.

use std::fmt;
use std::io::{self, Write};

/// Stdout. Marks its errors, so that they can be told from those of files.
pub(crate) struct OutputWriter<'a>(pub(crate) &'a mut dyn Write);

/// An error while writing to stdout.
#[derive(Debug)]
struct OutputError(io::Error);

impl std::error::Error for OutputError {}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Write for OutputWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| io::Error::new(error.kind(), OutputError(error)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| io::Error::new(error.kind(), OutputError(error)))
    }
}

/// Whether an error came from writing to stdout.
pub(crate) fn is_output_error(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .is_some_and(|cause| cause.is::<OutputError>())
}

/// Prints a message to stderr.
pub(crate) fn report(text: &str) {
    // With stderr closed, nobody can read it.
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}
