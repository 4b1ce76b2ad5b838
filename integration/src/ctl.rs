//! `vlan-bridgectl` on a node that has configuration files of its own.

use crate::{Background, Node, Outcome, Scratch, poll, programs, run};
use nix::mount::{MsFlags, mount};
use nix::unistd::setuid;
use serde_json::Value;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The folders of a machine that the node has instead of the machine's; the tool reads and writes them.
const OWN: [&str; 8] = [
    "/etc",
    "/opt/cni",
    "/run/secrets",
    "/run/systemd",
    "/usr/lib/systemd/network",
    "/usr/local/sbin",
    "/var/lib",
    "/var/snap",
];

/// A node's tool. The folders `OWN` belong to the node and are empty at first.
#[derive(Debug)]
pub struct Ctl<'a> {
    node: &'a Node,
    root: Scratch,
}

/// A line of `vlan-bridgectl doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `ok`, `warn` or `fail`.
    pub verdict: String,
    /// The check.
    pub check: String,
    /// The text of the finding.
    pub seen: String,
    /// The commands that fix it.
    pub fixes: Vec<String>,
}

impl<'a> Ctl<'a> {
    /// The tool on a node.
    pub fn new(node: &'a Node) -> Ctl<'a> {
        let root = Scratch::new("root");
        for folder in OWN {
            fs::create_dir_all(root.path().join(&folder[1..])).expect("a folder of ours can be filled");
            // An empty folder to mount on, where the machine has none.
            fs::create_dir_all(folder).expect("root can make a folder");
        }
        fs::create_dir_all(root.path().join("bin")).expect("a folder of ours can be filled");
        Ctl { node, root }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        self.node
    }

    /// The path of a node's file in the machine's file system.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file of the node.
    #[track_caller]
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        let folder = path.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("a folder of ours can be filled");
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Puts a program into the node's path that prints only its version. The tool takes it for a runtime.
    pub fn program(&self, name: &str, version: &str) {
        let path = format!("bin/{name}");
        self.write(&path, &format!("#!/bin/sh\necho '{version}'\n"));
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }

    /// Starts such a program with the words of a line. It runs until the value is dropped. It sees the node's
    /// files, and the tool sees it.
    pub fn running(&self, name: &str, version: &str, line: &str) -> Background {
        self.running_as(0, name, version, line)
    }

    /// The same as another user's process.
    pub fn running_as(&self, user: u32, name: &str, version: &str, line: &str) -> Background {
        let path = format!("bin/{name}");
        let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && exec echo '{version}'\nread -r word\n");
        self.write(&path, &script);
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).expect("a file of ours");
        self.start_as(user, name, line)
    }

    /// Starts a program that is in the node's path already.
    pub fn start_as(&self, user: u32, name: &str, line: &str) -> Background {
        let mut command = self.command_of(&self.path(&format!("bin/{name}")), line);
        // SAFETY: between fork and exec only a system call is made. `Command::uid` would take effect before
        // the mounts.
        unsafe { command.pre_exec(move || Ok(setuid(user.into())?)) };
        let process = Background::start(command.stdin(Stdio::piped()));
        let comm = format!("/proc/{}/comm", process.pid());
        // The kernel truncates the name to 15 bytes.
        let kept = name.get(..15).unwrap_or(name);
        poll(Duration::from_secs(10), "a program that runs", || {
            fs::read_to_string(&comm).is_ok_and(|comm| comm.trim_end() == kept)
        });
        process
    }

    /// The content of a file of the node.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// Whether the node has a file.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The tool with the words of a line, not started yet.
    pub fn command(&self, line: &str) -> Command {
        self.command_of(&programs::product().join("vlan-bridgectl"), line)
    }

    /// A program that finds the node's own files in their places.
    pub fn command_of(&self, program: &Path, line: &str) -> Command {
        let mut command = self.node.command(program);
        command.args(line.split_whitespace()).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
        let mounts = OWN.map(|folder| (text(&self.path(folder)), text(Path::new(folder))));
        // SAFETY: between fork and exec only system calls are made: the paths are C strings already.
        unsafe {
            command.pre_exec(move || {
                for (own, place) in &mounts {
                    let nothing = None::<&std::ffi::CStr>;
                    mount(Some(own.as_c_str()), place.as_c_str(), nothing, MsFlags::MS_BIND, nothing)?;
                }
                Ok(())
            });
        }
        command
    }

    /// The findings of `doctor`. Any exit status is accepted.
    #[track_caller]
    pub fn doctor(&self, words: &str) -> Vec<Finding> {
        let outcome = self.run(&format!("doctor -o json {words}"));
        let all = outcome.json();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let findings = all.as_array().into_iter().flatten().map(|finding| Finding {
            verdict: text(finding, "verdict"),
            check: text(finding, "check"),
            seen: text(finding, "seen"),
            fixes: finding["fix"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|line| line.as_str().unwrap_or_default().to_owned())
                .collect(),
        });
        let findings: Vec<Finding> = findings.collect();
        let fails = findings.iter().any(|finding| finding.verdict == "fail");
        assert_eq!(outcome.status.code(), Some(i32::from(fails)), "{outcome}");
        findings
    }

    /// The failures of `doctor --no-probe`.
    #[track_caller]
    pub fn failures(&self) -> Vec<Finding> {
        let findings = self.doctor("--no-probe").into_iter();
        findings.filter(|finding| finding.verdict == "fail").collect()
    }

    /// Runs the tool with the words of a line.
    #[track_caller]
    pub fn run(&self, line: &str) -> Outcome {
        run(&mut self.command(line))
    }
}
