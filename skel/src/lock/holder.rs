//! Finds the processes that hold a lock, for error messages.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use super::identity;

/// How many processes a message names.
const MAX_NAMED: usize = 3;
/// How many characters of a command line a message shows.
const MAX_COMMAND_LINE: usize = 120;

/// The processes that hold a lock, as far as this PID namespace shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders(Vec<HolderProcess>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct HolderProcess {
    pid: u32,
    name: String,
    command: String,
}

impl Holders {
    /// Looks through the open files of every process. /proc/locks is not enough: it names the process that
    /// locked, which may have ended and left the lock to a child, and its device number is not always the
    /// file's.
    pub(super) fn of(file: &File) -> Holders {
        let Ok(wanted) = file.metadata().map(|found| identity(&found)) else { return Holders(Vec::new()) };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let holders = pids.filter(|pid| holds(*pid, wanted)).take(MAX_NAMED);
        Holders(holders.map(HolderProcess::of).collect())
    }
}

/// Whether a process has this file open with a lock on it. fdinfo shows no lock for a process that only
/// waits.
fn holds(pid: u32, wanted: (u64, u64)) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter(|entry| fs::metadata(entry.path()).is_ok_and(|found| identity(&found) == wanted)).any(
        |entry| {
            let about = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(entry.file_name());
            fs::read_to_string(about).is_ok_and(|text| is_locked(&text))
        },
    )
}

fn is_locked(about: &str) -> bool {
    about.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"))
}

impl HolderProcess {
    fn of(pid: u32) -> HolderProcess {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        HolderProcess { pid, name: printable(&read("comm")), command: printable(&read("cmdline")) }
    }
}

/// A process's name or command line in one line, without control characters.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = text.trim_end_matches(['\0', '\n']).chars();
    plain.map(|c| if c.is_control() { ' ' } else { c }).take(MAX_COMMAND_LINE).collect()
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(
                "no process in this PID namespace: one in another PID namespace, or on another machine if the file system is shared",
            );
        }
        for (index, holder) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}process {} ({}", holder.pid, holder.name)?;
            // A kernel thread has no command line.
            if !holder.command.is_empty() {
                write!(f, ": {}", holder.command)?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_told_from_who_has_the_file_open() {
        assert!(is_locked("pos:\t0\nflags:\t0100002\nlock:\t1: FLOCK  ADVISORY  WRITE 7 00:2a:3 0 EOF\n"));
        assert!(!is_locked("pos:\t0\nlock:\t1: POSIX  ADVISORY  WRITE 7 00:2a:3 0 EOF\n"));
        assert!(!is_locked("pos:\t0\nflags:\t0100002\nmnt_id:\t21\n"));
    }

    #[test]
    fn a_message_is_one_line_and_names_the_process_or_says_why_not() {
        assert_eq!(printable(b"sh\0-c\0a\x1b[1m\nb\0"), "sh -c a [1m b");
        assert_eq!(printable(&[b'x'; 500]).len(), MAX_COMMAND_LINE);
        let sleep = HolderProcess { pid: 7, name: "sleep".into(), command: "sleep 300".into() };
        let kernel = HolderProcess { pid: 8, name: "kworker".into(), command: String::new() };
        assert_eq!(
            Holders(vec![sleep, kernel]).to_string(),
            "process 7 (sleep: sleep 300), process 8 (kworker)"
        );
        assert!(Holders(Vec::new()).to_string().contains("another PID namespace"));
    }
}
