//! `install --agent`: the tool at a path that stays, and the systemd unit that runs it as the node agent.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use vlan_bridge::is_executable;

use crate::files;

/// Exists while systemd runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// The path in the unit's `ExecStart=`, and in the drop-ins of the folder deploy/systemd.
const TOOL: &str = "/usr/local/sbin/vlan-bridgectl";
const UNIT: &str = "/etc/systemd/system/vlan-bridge-agent.service";
/// Made by `systemctl enable`.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/vlan-bridge-agent.service";
const UNIT_TEXT: &str = include_str!("../../../deploy/systemd/vlan-bridge-agent.service");

/// A file of the agent to install.
pub(super) struct AgentFile {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
    /// The state of the installed file, once it was read.
    state: &'static str,
}

/// The files of the agent, the unit last.
///
/// # Errors
/// systemd does not run on this machine.
pub(super) fn plan() -> Result<Vec<AgentFile>> {
    if !Path::new(BOOTED).is_dir() {
        bail!(
            "--agent installs a systemd unit, and systemd does not run here ({BOOTED} does not exist): let \
             another supervisor run `vlan-bridgectl agent`"
        );
    }
    let tool = std::env::current_exe().context("cannot find vlan-bridgectl itself")?;
    let content = files::read(&tool)?.with_context(|| format!("{} is gone", tool.display()))?;
    let file = |path: &str, content, mode| AgentFile { path: path.into(), content, mode, state: "new" };
    Ok(vec![file(TOOL, content, 0o755), file(UNIT, UNIT_TEXT.into(), 0o644)])
}

/// Whether the unit is installed.
pub(crate) fn is_installed() -> bool {
    Path::new(UNIT).exists()
}

/// What uninstall has to remove.
pub(super) fn installed_paths() -> [&'static Path; 3] {
    [ENABLED, UNIT, TOOL].map(Path::new)
}

/// What starts the installed agent, or lets a running one begin again.
pub(super) fn commands(files: &[AgentFile]) -> &'static [&'static str] {
    const ALL: [&str; 3] = [
        "systemctl daemon-reload",
        "systemctl enable --now vlan-bridge-agent",
        "systemctl restart vlan-bridge-agent",
    ];
    match files.iter().any(|file| file.state == "replaced") {
        true => &ALL,
        false if files.is_empty() => &[],
        false => &ALL[..2],
    }
}

impl AgentFile {
    pub(super) fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Reads the installed file.
    pub(super) fn read_installed(&mut self) -> Result<()> {
        let is_executable = self.mode == 0o644 || is_executable(&self.path);
        self.state = match files::read(&self.path)? {
            None => "new",
            Some(installed) if installed == self.content && is_executable => "unchanged",
            Some(_) => "replaced",
        };
        Ok(())
    }

    /// Writes the file, unless it is unchanged.
    pub(super) fn install(&self) -> Result<()> {
        if self.state == "unchanged" {
            return Ok(());
        }
        files::write_atomically(&self.path, &self.content, self.mode)
    }

    /// For `-o json`.
    pub(super) fn to_json(&self) -> Value {
        json!({"path": self.path, "state": self.state})
    }
}

impl fmt::Display for AgentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.mode == 0o755 { env!("CARGO_PKG_VERSION") } else { "the agent's unit" };
        write!(f, "{:9} {}: {version}", self.state, self.path.display())
    }
}
