//! Runs the IPAM plugin (CNI 1.1, section 4, "Plugin Delegation"): in this process if the plugin is this
//! program under its other name, else in a process of its own.

use std::fs::Metadata;
use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::AddResult;
use cni_conf::cni::version::Version;
use cni_conf::ipam_plugin::IpamPlugin;
use cni_conf::request::Request;
use serde_json::Value;

/// A pipe holds at least one page, so a configuration up to this size is written at once, whether the plugin
/// reads or not.
const PIPE_HOLDS: usize = 4096;

/// The longest accepted answer of a plugin, in bytes: as long as the longest configuration that this plugin
/// accepts, because that must hold the answer as `prevResult`.
const LONGEST_ANSWER: u64 = cni_skel::MAX_STDIN;

/// An IPAM plugin found in `CNI_PATH`, and its request: the runtime's, byte for byte.
#[derive(Clone)]
pub struct Delegate {
    plugin: IpamPlugin,
    binary: PathBuf,
    /// Whether that file is this program. Then a call runs in this process.
    is_this_program: bool,
    request: Arc<Request>,
}

impl std::fmt::Debug for Delegate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.binary.display())
    }
}

impl Delegate {
    /// Looks the plugin up in `CNI_PATH`: the first executable file of that name. Relative folders are
    /// skipped, because their meaning depends on the runtime's working directory.
    pub fn find(plugin: &IpamPlugin, request: &Request) -> Result<Delegate, CniError> {
        let (name, folders) = (plugin.name(), &request.env.path);
        let mut candidates =
            folders.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
        let found = candidates.find_map(|path| {
            let file = path.metadata().ok().filter(is_program)?;
            Some((path, file))
        });
        match found {
            Some((binary, file)) => Ok(Delegate {
                binary,
                is_this_program: plugin.is_ours() && is_this_program(&file),
                plugin: plugin.clone(),
                request: Arc::new(request.clone()),
            }),
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

    /// Whether it is `vlan-bridge-ipam`, whose behaviour after errors is known.
    pub fn is_ours(&self) -> bool {
        self.plugin.is_ours()
    }

    /// Runs a verb and waits for its end. The result is ignored, except for an error.
    pub fn call(&self, command: Command) -> Result<(), CniError> {
        self.start(command)?.finish()
    }

    /// Starts a verb. A plugin process runs while the caller continues. This program's own IPAM has
    /// finished when this returns.
    pub fn start(&self, command: Command) -> Result<Running, CniError> {
        if self.is_this_program {
            let mut request = Request::clone(&self.request);
            request.env.command = command;
            return Ok(Running::Ended(vlan_bridge_ipam::run(&request)));
        }
        self.execute(command).map(Running::Process)
    }

    /// The process inherits the environment, except `CNI_COMMAND`, and stderr.
    fn execute(&self, command: Command) -> Result<Executed, CniError> {
        let (stdin, writer) =
            io::pipe().map_err(|e| self.failed(format_args!("no pipe for its stdin: {e}")))?;
        let writer = if self.request.stdin.len() <= PIPE_HOLDS {
            // A plugin that waits for its configuration would be woken on the writer's CPU and delay the
            // writer.
            self.give_config(writer);
            None
        } else {
            Some(writer)
        };
        let child = Process::new(&self.binary)
            // Our plugin ends with this process, so that it allocates no address afterwards. And this program
            // knows that it is IPAM, whatever its file is called: it does not execute itself again.
            .env(vlan_bridge_ipam::STARTED_BY, std::process::id().to_string())
            .env("CNI_COMMAND", command.as_str())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| self.failed(format_args!("{e}")))?;
        if let Some(writer) = writer {
            // Not joined: after the plugin has answered, its unread input does not matter.
            let delegate = self.clone();
            thread::Builder::new()
                .spawn(move || delegate.give_config(writer))
                .map_err(|e| self.failed(format_args!("no thread to write its stdin: {e}")))?;
        }
        Ok(Executed { delegate: self.clone(), child })
    }

    fn give_config(&self, mut stdin: PipeWriter) {
        match stdin.write_all(&self.request.stdin) {
            // A plugin may ignore its configuration.
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
        CniError::new(code::DELEGATE_FAILED, format!("IPAM plugin {}: {why}", self.binary.display()))
    }
}

/// A started verb of the IPAM plugin.
#[derive(Debug)]
#[must_use = "the caller must wait for its end"]
pub enum Running {
    /// It ran in this process.
    Ended(Result<Option<Value>, CniError>),
    /// It runs in a process of its own.
    Process(Executed),
}

impl Running {
    /// The result of an ADD. A result without a cniVersion counts as of the configuration's version. An
    /// error of the plugin is returned with its own code and message.
    pub fn added(self, version: Version) -> Result<AddResult, CniError> {
        let value = match self {
            Running::Ended(outcome) => outcome?.unwrap_or_default(),
            Running::Process(process) => process.document()?,
        };
        AddResult::from_json(&value, version)
    }

    /// Waits for the end of a verb that has no result.
    pub fn finish(self) -> Result<(), CniError> {
        match self {
            Running::Ended(outcome) => outcome.map(drop),
            Running::Process(process) => process.answer().map(drop),
        }
    }
}

/// An IPAM plugin in a process of its own.
#[derive(Debug)]
pub struct Executed {
    delegate: Delegate,
    child: Child,
}

impl Executed {
    /// Waits for the plugin to end.
    fn answer(mut self) -> Result<Vec<u8>, CniError> {
        let answer = self.read();
        if answer.is_err() {
            // The plugin may write forever, and its output is no longer read.
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_err(|e| self.delegate.failed(format_args!("{e}")))?;
        self.delegate.judge(status, answer?)
    }

    /// Waits for the plugin to end, and decodes its answer.
    fn document(self) -> Result<Value, CniError> {
        let delegate = self.delegate.clone();
        serde_json::from_slice(&self.answer()?)
            .map_err(|e| delegate.failed(format_args!("its result is not JSON: {e}")))
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

/// Whether this is a file with an execute permission, which root needs too.
pub fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| is_program(&found))
}

fn is_program(file: &Metadata) -> bool {
    const ANYBODY: u32 = 0o111;
    file.is_file() && file.permissions().mode() & ANYBODY != 0
}

/// Whether a file is this process's program, under any name. After an update it is not, and the new file is
/// executed.
fn is_this_program(file: &Metadata) -> bool {
    let own = Path::new("/proc/self/exe").metadata();
    own.is_ok_and(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
}
