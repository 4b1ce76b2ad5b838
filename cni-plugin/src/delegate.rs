//! Runs the IPAM plugin (CNI 1.1, section 4, "Plugin Delegation").

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::AddResult;
use cni_conf::cni::version::Version;
use cni_conf::network::OUR_IPAM;
use cni_conf::request::Request;
use serde_json::Value;

/// A pipe holds at least one page, so a configuration up to this size is written at once, whether the plugin reads or not.
const PIPE_HOLDS: usize = 4096;

/// The longest answer taken from a plugin, in bytes: what a plugin of ours takes as configuration, which has to hold it again
/// as `prevResult`.
const LONGEST_ANSWER: u64 = cni_skel::MAX_STDIN;

/// An IPAM plugin found in `CNI_PATH`, with the configuration that it is given: the whole of ours, byte for byte.
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
    /// Looks the plugin up in `CNI_PATH`: the first file of that name that can be executed. A folder that is not absolute is
    /// passed over: what it means depends on where the runtime happens to be.
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

    /// Runs a verb beside what the caller goes on with. The environment is ours but for `CNI_COMMAND`, stderr is ours too.
    /// An error of the plugin comes back with its own code and message.
    pub async fn call(&self, command: Command) -> Result<Vec<u8>, CniError> {
        let delegate = self.clone();
        match tokio::task::spawn_blocking(move || delegate.run(command)).await {
            Ok(answer) => answer,
            Err(e) => Err(self.failed(format_args!("{e}"))),
        }
    }

    /// ADD, with the answer decoded. One without a cniVersion is taken to be in the configuration's.
    pub async fn add(&self, version: Version) -> Result<AddResult, CniError> {
        let answer = self.call(Command::Add).await?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|e| self.failed(format_args!("its result is not JSON: {e}")))?;
        AddResult::from_json(&value, version)
    }

    fn run(&self, command: Command) -> Result<Vec<u8>, CniError> {
        let mut process = Process::new(&self.binary);
        if self.binary.ends_with(OUR_IPAM) {
            // It ends with us, so that it takes no address when we are gone.
            process.env("VLAN_BRIDGE_PID", std::process::id().to_string());
        }
        let mut child = process
            .env("CNI_COMMAND", command.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| self.failed(format_args!("{e}")))?;
        let answer = self.converse(&mut child);
        if answer.is_err() {
            // It may write for ever, and nobody reads any more.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|e| self.failed(format_args!("{e}")))?;
        self.judge(status, answer?)
    }

    /// Gives the plugin its configuration and reads its answer to the end, neither waiting for the other.
    fn converse(&self, child: &mut Child) -> Result<Vec<u8>, CniError> {
        if let Some(stdin) = child.stdin.take() {
            if self.config.len() <= PIPE_HOLDS {
                self.give_config(stdin);
            } else {
                // Not waited for: what is unread when the plugin has answered interests nobody.
                let delegate = self.clone();
                thread::Builder::new()
                    .spawn(move || delegate.give_config(stdin))
                    .map_err(|e| self.failed(format_args!("no thread to write its stdin: {e}")))?;
            }
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(LONGEST_ANSWER + 1)
                .read_to_end(&mut answer)
                .map_err(|e| self.failed(format_args!("its stdout could not be read: {e}")))?;
        }
        if answer.len() as u64 > LONGEST_ANSWER {
            return Err(self.failed(format_args!("its answer is longer than {LONGEST_ANSWER} bytes")));
        }
        Ok(answer)
    }

    fn give_config(&self, mut stdin: ChildStdin) {
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

/// Whether this is a file that anybody may execute, which is what root needs to.
pub fn is_executable(path: &Path) -> bool {
    const ANYBODY: u32 = 0o111;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & ANYBODY != 0)
}
