//! Runs the IPAM plugin (CNI 1.1, section 4, "Plugin Delegation").

use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::AddResult;
use cni_conf::cni::version::Version;
use cni_conf::network::OUR_IPAM;
use cni_conf::request::Request;
use serde_json::Value;

/// A pipe holds at least one page, so a configuration up to this size is written at once, whether the plugin
/// reads or not.
const PIPE_HOLDS: usize = 4096;

/// The longest answer taken from a plugin, in bytes: what a plugin of ours takes as configuration, which has
/// to hold it again as `prevResult`.
const LONGEST_ANSWER: u64 = cni_skel::MAX_STDIN;

/// An IPAM plugin found in `CNI_PATH`, with the configuration that it is given: the whole of ours, byte for
/// byte.
#[derive(Clone)]
pub struct Delegate {
    binary: PathBuf,
    config: Arc<Vec<u8>>,
}

impl std::fmt::Debug for Delegate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.binary.display())
    }
}

impl Delegate {
    /// Looks the plugin up in `CNI_PATH`: the first file of that name that can be executed. A folder that is
    /// not absolute is passed over: what it means depends on where the runtime happens to be.
    pub fn find(name: &str, request: &Request) -> Result<Delegate, CniError> {
        let folders = &request.env.path;
        let mut candidates =
            folders.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
        match candidates.find(|path| is_executable(path)) {
            Some(binary) => Ok(Delegate { binary, config: Arc::new(request.stdin.clone()) }),
            None => {
                let searched: Vec<String> =
                    folders.iter().map(|folder| folder.display().to_string()).collect();
                Err(CniError::new(
                    code::DELEGATE_FAILED,
                    format!(
                        "ipam.type: no plugin {name} that can be executed in the absolute paths of CNI_PATH {}",
                        searched.join(":")
                    ),
                ))
            }
        }
    }

    /// Whether it is `vlan-bridge-ipam`, of whose errors we know what they leave.
    pub fn is_ours(&self) -> bool {
        self.binary.ends_with(OUR_IPAM)
    }

    /// Runs a verb to its end.
    pub fn call(&self, command: Command) -> Result<Vec<u8>, CniError> {
        self.start(command)?.answer()
    }

    /// Starts a verb, and leaves the plugin at work beside what the caller goes on with. The environment is
    /// ours but for `CNI_COMMAND`, stderr is ours too.
    pub fn start(&self, command: Command) -> Result<Running, CniError> {
        let (stdin, writer) =
            io::pipe().map_err(|e| self.failed(format_args!("no pipe for its stdin: {e}")))?;
        let writer = if self.config.len() <= PIPE_HOLDS {
            // A plugin that had to wait for it would be woken on the writer's CPU, and keep the writer from
            // its own work.
            self.give_config(writer);
            None
        } else {
            Some(writer)
        };
        let mut process = Process::new(&self.binary);
        if self.is_ours() {
            // It ends with us, so that it takes no address when we are gone.
            process.env("VLAN_BRIDGE_PID", std::process::id().to_string());
        }
        let child = process
            .env("CNI_COMMAND", command.as_str())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| self.failed(format_args!("{e}")))?;
        if let Some(writer) = writer {
            // Not waited for: what is unread when the plugin has answered interests nobody.
            let delegate = self.clone();
            thread::Builder::new()
                .spawn(move || delegate.give_config(writer))
                .map_err(|e| self.failed(format_args!("no thread to write its stdin: {e}")))?;
        }
        Ok(Running { delegate: self.clone(), child })
    }

    fn give_config(&self, mut stdin: PipeWriter) {
        match stdin.write_all(&self.config) {
            // A plugin need not read a configuration that it has no use for.
            Err(e) if e.kind() != ErrorKind::BrokenPipe => {
                log::warn!("{}: its stdin could not be written: {e}", self.binary.display());
            }
            _ => {}
        }
    }

    fn judge(&self, status: ExitStatus, answer: Vec<u8>) -> Result<Vec<u8>, CniError> {
        if status.success() {
            return Ok(answer);
        }
        let own = serde_json::from_slice(&answer).ok().and_then(|value| CniError::from_json(&value));
        Err(own.unwrap_or_else(|| {
            let said = String::from_utf8_lossy(&answer);
            self.failed(format_args!("{status}")).details(said.trim())
        }))
    }

    fn failed(&self, why: std::fmt::Arguments<'_>) -> CniError {
        CniError::new(code::DELEGATE_FAILED, format!("ipam plugin {}: {why}", self.binary.display()))
    }
}

/// An IPAM plugin at work.
#[derive(Debug)]
#[must_use = "nobody else waits for its end"]
pub struct Running {
    delegate: Delegate,
    child: Child,
}

impl Running {
    /// Waits for the plugin to end. An error of it comes back with its own code and message.
    pub fn answer(mut self) -> Result<Vec<u8>, CniError> {
        let answer = self.read();
        if answer.is_err() {
            // It may write for ever, and nobody reads any more.
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_err(|e| self.delegate.failed(format_args!("{e}")))?;
        self.delegate.judge(status, answer?)
    }

    /// [`Running::answer`] of an ADD, decoded. One without a cniVersion is taken to be in the
    /// configuration's.
    pub fn added(self, version: Version) -> Result<AddResult, CniError> {
        let delegate = self.delegate.clone();
        let value: Value = serde_json::from_slice(&self.answer()?)
            .map_err(|e| delegate.failed(format_args!("its result is not JSON: {e}")))?;
        AddResult::from_json(&value, version)
    }

    fn read(&mut self) -> Result<Vec<u8>, CniError> {
        let mut answer = Vec::new();
        if let Some(stdout) = self.child.stdout.take() {
            stdout
                .take(LONGEST_ANSWER + 1)
                .read_to_end(&mut answer)
                .map_err(|e| self.delegate.failed(format_args!("its stdout could not be read: {e}")))?;
        }
        if answer.len() as u64 > LONGEST_ANSWER {
            return Err(self
                .delegate
                .failed(format_args!("its answer is longer than {LONGEST_ANSWER} bytes")));
        }
        Ok(answer)
    }
}

/// Whether this is a file that anybody may execute, which is what root needs to.
pub fn is_executable(path: &Path) -> bool {
    const ANYBODY: u32 = 0o111;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & ANYBODY != 0)
}
