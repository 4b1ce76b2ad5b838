//! The runtimes that run: `/proc` says with which options.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::files;

/// A program of this node that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its file, or its name where that is all there is to know.
    pub(super) program: PathBuf,
    /// What it was called with.
    pub(super) words: Vec<String>,
    /// Its working folder.
    pub(super) folder: PathBuf,
}

/// The processes of a program. Where the node's `/proc` cannot be seen, as from within most containers, there are none.
///
/// Only those of root count: anybody can give a process of theirs any name and options, and we write where these say. And only
/// those in our own network namespace, which is the node's: a machine made of containers shows the runtimes of its nodes too.
pub(super) fn of(name: &str) -> Vec<Process> {
    let Ok(own) = fs::metadata("/proc/self/ns/net") else { return Vec::new() };
    let pids = files::names(Path::new("/proc")).unwrap_or_default();
    let pids = pids.iter().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    let of_node = pids.map(|pid| Path::new("/proc").join(pid)).filter(|process| {
        let namespace = fs::metadata(process.join("ns/net"));
        is_roots(process) && namespace.is_ok_and(|namespace| is_same(&namespace, &own))
    });
    of_node.filter_map(|process| look(&process, name)).collect()
}

fn is_roots(process: &Path) -> bool {
    fs::metadata(process).is_ok_and(|metadata| metadata.uid() == 0)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// What a process is, if it is of this name. It may end while we look.
fn look(process: &Path, name: &str) -> Option<Process> {
    let line = fs::read(process.join("cmdline")).ok()?;
    let words: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let is_named = |word: &String| Path::new(word).file_name().is_some_and(|last| last == name);
    let called = fs::read_to_string(process.join("comm")).ok()?;
    if called.trim_end() != name && !words.first().is_some_and(is_named) {
        return None;
    }
    // A wrapper may be a script, whose interpreter is the first word.
    let at = words.iter().take(2).position(is_named).unwrap_or(0);
    let program = Path::new(&words[at]);
    let beside = || Some(fs::read_link(process.join("exe")).ok()?.parent()?.join(name));
    let program = match program.is_absolute() && is_named(&words[at]) {
        true => Some(program.to_owned()),
        false => beside().filter(|path| path.exists()),
    };
    let found = Process {
        program: program.unwrap_or_else(|| name.into()),
        words: words.into_iter().skip(at + 1).collect(),
        folder: fs::read_link(process.join("cwd")).unwrap_or_else(|_| "/".into()),
    };
    Some(found).filter(|_| is_of_our_tree(process))
}

/// Whether a process has our file system at its root: another's paths mean nothing here.
fn is_of_our_tree(process: &Path) -> bool {
    let roots: io::Result<bool> =
        (|| Ok(is_same(&fs::metadata(process.join("root/"))?, &fs::metadata("/")?)))();
    roots.unwrap_or(false)
}

impl Process {
    /// The values of an option, of whichever name: `--name value` or `--name=value`.
    pub(super) fn values_of(&self, names: &[&str]) -> Vec<&str> {
        let mut values = Vec::new();
        for (index, word) in self.words.iter().enumerate() {
            let value = match word.split_once('=') {
                Some((name, value)) if names.contains(&name) => Some(value),
                None if names.contains(&word.as_str()) => self.words.get(index + 1).map(String::as_str),
                _ => None,
            };
            values.extend(value.filter(|value| !value.is_empty()));
        }
        values
    }

    /// The same, as paths from the root.
    pub(super) fn paths_of(&self, names: &[&str]) -> Vec<PathBuf> {
        self.values_of(names).into_iter().map(|value| self.folder.join(value)).collect()
    }
}
