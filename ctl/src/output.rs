//! Stdout for results, and stderr for messages.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

/// Stdout. Escapes what would control a terminal. Marks its errors, so that they can be told from those of
/// files.
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
        // Each part of a formatted text is whole characters.
        let text = String::from_utf8_lossy(bytes);
        let lines = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
            Some(line) => format!("{}\n", printable(line)),
            None => printable(line).into_owned(),
        });
        let all: String = lines.collect();
        self.0.write_all(all.as_bytes()).map_err(output_error)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(output_error)
    }
}

/// Marks an error of stdout.
pub(crate) fn output_error(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), OutputError(error))
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
    let lines: Vec<_> = text.trim_end().split('\n').map(printable).collect();
    // With stderr closed, nobody can read it.
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// Whether the locale is one in UTF-8 (locale(7)).
pub(crate) fn has_utf8() -> bool {
    let values = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok());
    let locale = values.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_lowercase();
    locale.ends_with("utf-8") || locale.ends_with("utf8")
}

/// A string as a part of one line. Names come from runtimes and other programs, and a terminal would obey the
/// control characters in them, or show the line in another order. They become escapes, which JSON has too.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let acts = |char: char| {
        char.is_control()
            || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return text.into();
    }
    let escaped = |char: char| match acts(char) {
        true => format!("\\u{:04x}", u32::from(char)),
        false => char.into(),
    };
    text.chars().map(escaped).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_controls_a_terminal() {
        assert_eq!(printable("shop/wéb-0"), "shop/wéb-0");
        assert_eq!(
            printable("a\x1b[2J\u{9b}1m\u{7f}\n\u{202e}b"),
            "a\\u001b[2J\\u009b1m\\u007f\\u000a\\u202eb"
        );
        let mut bytes = Vec::new();
        write!(OutputWriter(&mut bytes), "one\x1b[2J\n  two\n").unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "one\\u001b[2J\n  two\n");
    }
}
