//! The log: one line for each record, on stderr or at the end of `logFile`. It never writes to stdout, and
//! a failure to log never fails the call.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni_conf::cni::env::Environment;
use cni_conf::request::{LogLevel, LogSettings};
use log::{LevelFilter, Log, Metadata, Record};

use crate::timestamp;

/// How many characters of a container ID are shown: as many as `crictl` shows.
const ID_SHOWN: usize = 13;

struct Logger {
    /// `None` for stderr.
    file: Option<File>,
    /// `vlan-bridge[123] ADD 0123456789abc eth0`
    context: String,
}

/// Starts the log for one request. If the file cannot be opened, the log goes to stderr and says so.
pub(crate) fn start(settings: &LogSettings, env: &Environment) {
    let (file, failure) = match settings.file.as_deref().map(|path| (path, open(path))) {
        None => (None, None),
        Some((_, Ok(file))) => (Some(file), None),
        Some((path, Err(error))) => (None, Some(format!("logFile: cannot open {}: {error}", path.display()))),
    };
    let program = std::env::args_os().next();
    let program = program.as_deref().map(Path::new).and_then(Path::file_name).unwrap_or(OsStr::new("cni"));
    let program = format!("{}[{}]", program.to_string_lossy(), std::process::id());
    let logger = Logger { file, context: context(&program, env) };
    // Setting a second logger fails, and the first one stays.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(match settings.level {
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Warn => LevelFilter::Warn,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Trace => LevelFilter::Trace,
        });
    }
    if let Some(failure) = failure {
        log::warn!("{failure}; logging to stderr");
    }
}

/// Opens the file to append, readable only by its owner because the log names containers. Creates no
/// directories.
fn open(path: &Path) -> io::Result<File> {
    // Opening a FIFO would block until it has a reader.
    if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return Err(io::Error::other("it is a FIFO"));
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn context(program: &str, env: &Environment) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    // Container IDs are ASCII.
    let id = env.container_id.get(..ID_SHOWN).unwrap_or(&env.container_id);
    format!("{program} {} {} {}", env.command.as_str(), or_dash(id), or_dash(&env.ifname))
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = line(now, record.level().as_str(), &self.context, &record.args().to_string());
        // One write for each line, so that lines of concurrent plugins do not mix. A full disk does not
        // fail the call.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().lock().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// One line. Control characters are escaped, so that no value can forge a second line.
fn line(since_epoch: Duration, level: &str, context: &str, message: &str) -> String {
    let mut line = format!("{} {level} {context}: ", timestamp::rfc3339(since_epoch));
    for c in message.chars() {
        // Writing to a String cannot fail.
        let _ = if c.is_control() { write!(line, "{}", c.escape_default()) } else { line.write_char(c) };
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_forge_a_line() {
        let line = line(Duration::ZERO, "WARN", "p[1] ADD c1 eth0", "a\nb\u{1b}[31mä");
        assert_eq!(line, "1970-01-01T00:00:00.000Z WARN p[1] ADD c1 eth0: a\\nb\\u{1b}[31mä\n");
    }

    #[test]
    fn the_context_names_the_attachment() {
        let env = |verb: &str| {
            Environment::parse(|name| match name {
                "CNI_COMMAND" => Some(verb.into()),
                "CNI_CONTAINERID" => Some("0123456789abcdef".into()),
                "CNI_IFNAME" => Some("eth0".into()),
                "CNI_PATH" => Some("/".into()),
                _ => None,
            })
            .unwrap()
        };
        assert_eq!(context("p[1]", &env("DEL")), "p[1] DEL 0123456789abc eth0");
        assert_eq!(context("p[1]", &env("GC")), "p[1] GC - -");
    }

    #[test]
    fn opens_what_can_be_opened() {
        let dir = std::env::temp_dir().join(format!("skel-log-{}", std::process::id()));
        assert!(open(&dir.join("missing/log")).is_err());
        fs::create_dir(&dir).unwrap();
        let path = dir.join("log");
        for _ in 0..2 {
            open(&path).unwrap().write_all(b"x").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"xx");
        assert!(open(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
