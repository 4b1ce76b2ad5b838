//! Finds the processes of runtimes and their options in `/proc`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::files;

/// A running process of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// The name that it was found by.
    pub(super) name: &'static str,
    /// Its executable, or only its name if the path is unknown.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Its working directory.
    pub(super) folder: PathBuf,
}

/// Finds the processes of some programs; none if the node's `/proc` is not visible, as in most containers.
///
/// Only root's processes count: any user can run a process with any name and options, and install writes to
/// the paths that these options name. Only processes in the own network namespace count, which is the
/// node's: a host whose nodes are containers shows the nodes' runtimes too.
pub(super) fn of(names: &[&'static str]) -> Vec<Process> {
    let pids = files::names(Path::new("/proc")).unwrap_or_default();
    let pids = pids.iter().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    let processes = pids.map(|pid| Path::new("/proc").join(pid));
    processes.filter_map(|process| parse(&process, names).filter(|_| is_of_node(&process))).collect()
}

/// Whether a process is root's, and has the network namespace and the root directory of this process. The
/// paths of other processes mean something else.
fn is_of_node(process: &Path) -> bool {
    let check = || -> io::Result<bool> {
        let is_ours = |own: &str, its: &str| {
            Ok::<_, io::Error>(is_same(&fs::metadata(own)?, &fs::metadata(process.join(its))?))
        };
        let status = fs::read_to_string(process.join("status"))?;
        Ok(runs_as_root(&status) && is_ours("/proc/self/ns/net", "ns/net")? && is_ours("/", "root/")?)
    };
    check().unwrap_or(false)
}

/// Whether all user IDs of a process are root's. A setuid program has another real user ID, and that user
/// chose its arguments.
fn runs_as_root(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().all(|user| user == "0"))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The process, if it has one of these names. It may end meanwhile.
fn parse(process: &Path, names: &[&'static str]) -> Option<Process> {
    let line = fs::read(process.join("cmdline")).ok()?;
    let arguments: Vec<String> = line
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let last =
        |argument: &String| Path::new(argument).file_name().map(|last| last.to_string_lossy().into_owned());
    let called = fs::read_to_string(process.join("comm")).ok()?;
    let called = [Some(called.trim_end().to_owned()), last(arguments.first()?)];
    let name = *names.iter().find(|name| called.iter().flatten().any(|called| called == *name))?;
    let is_named = |argument: &String| last(argument).as_deref() == Some(name);
    // A wrapper may be a script, whose interpreter is the first argument.
    let at = arguments.iter().take(2).position(is_named).unwrap_or(0);
    let program = Path::new(&arguments[at]);
    let beside = || Some(fs::read_link(process.join("exe")).ok()?.parent()?.join(name));
    let program = match program.is_absolute() && is_named(&arguments[at]) {
        true => Some(program.to_owned()),
        false => beside().filter(|path| path.exists()),
    };
    Some(Process {
        name,
        program: program.unwrap_or_else(|| name.into()),
        arguments: arguments.into_iter().skip(at + 1).collect(),
        folder: fs::read_link(process.join("cwd")).unwrap_or_else(|_| "/".into()),
    })
}

impl Process {
    /// The values of an option by any of its names: `--name value` or `--name=value`.
    pub(super) fn values_of(&self, names: &[&str]) -> Vec<&str> {
        let mut values = Vec::new();
        for (index, argument) in self.arguments.iter().enumerate() {
            let value = match argument.split_once('=') {
                Some((name, value)) if names.contains(&name) => Some(value),
                None if names.contains(&argument.as_str()) => {
                    self.arguments.get(index + 1).map(String::as_str)
                }
                _ => None,
            };
            values.extend(value.filter(|value| !value.is_empty()));
        }
        values
    }

    /// The same, as absolute paths.
    pub(super) fn paths_of(&self, names: &[&str]) -> Vec<PathBuf> {
        self.values_of(names).into_iter().map(|value| self.folder.join(value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_as_root_if_root_started_it() {
        assert!(runs_as_root("Name:\tx\nUid:\t0\t0\t0\t0\n"));
        for users in ["1000\t1000\t1000\t1000", "1000\t0\t0\t0", "0\t1000\t0\t1000"] {
            assert!(!runs_as_root(&format!("Uid:\t{users}\n")), "{users}");
        }
        assert!(!runs_as_root(""));
    }
}
