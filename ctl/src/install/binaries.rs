//! The plugins' files: the installed version, and the one to install.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use vlan_bridge::is_executable;

use crate::files;

/// The names of the plugins.
pub(crate) const PLUGINS: [&str; 2] = ["vlan-bridge", "vlan-bridge-ipam"];

/// A plugin to install into a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    /// The path to install to.
    pub(crate) target: PathBuf,
    content: Vec<u8>,
    /// Another target with the same content, to hard-link to.
    same_as: Option<PathBuf>,
    /// The version to install.
    version: String,
    /// The installed version, once it was read; none if there is none.
    before: Option<String>,
    unchanged: bool,
}

/// Reads the plugins from `from`, else from the directory of vlan-bridgectl.
pub(crate) fn plan(from: Option<&Path>, bin_dirs: &[PathBuf]) -> Result<Vec<Binary>> {
    let from = match from {
        Some(from) => from.to_owned(),
        None => own_folder()?,
    };
    let mut binaries: Vec<Binary> = Vec::new();
    for name in PLUGINS {
        let source = from.join(name);
        let content = files::read(&source)?.ok_or_else(|| {
            anyhow!("{}: file not found: set --from to the directory with the plugins", source.display())
        })?;
        let version =
            version(&source).with_context(|| format!("{} does not run on this node", source.display()))?;
        for dir in bin_dirs {
            let same = |other: &&Binary| other.target.parent() == Some(dir) && other.content == content;
            let same_as = binaries.iter().find(same).map(|other| other.target.clone());
            binaries.push(Binary {
                target: dir.join(name),
                same_as,
                content: content.clone(),
                version: version.clone(),
                before: None,
                unchanged: false,
            });
        }
    }
    Ok(binaries)
}

fn own_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context(
        "cannot find the directory of vlan-bridgectl: set --from to the directory with the plugins",
    )?;
    own.parent()
        .map(Path::to_owned)
        .context("cannot find the directory of vlan-bridgectl: set --from to the directory with the plugins")
}

/// The version that a plugin prints: `vlan-bridge 0.1.0: CNI plugin …` is version 0.1.0.
pub(crate) fn version(path: &Path) -> Result<String> {
    let mut command = Command::new(path);
    let output = command.arg("--version").env_remove("CNI_COMMAND").stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = text.trim_start().strip_prefix(&name).and_then(|rest| rest.split_whitespace().next());
    match version {
        Some(version) if output.status.success() => Ok(version.trim_end_matches(':').to_owned()),
        _ => bail!("it does not print its version"),
    }
}

impl Binary {
    /// Reads the installed file.
    pub(super) fn read_installed(&mut self) -> Result<()> {
        let installed = files::read(&self.target)?;
        self.before = installed.as_ref().map(|_| version(&self.target).unwrap_or_else(|_| "unknown".into()));
        self.unchanged = installed.as_ref() == Some(&self.content) && is_executable(&self.target);
        Ok(())
    }

    /// Installs the plugin, unless it is unchanged. A file with the same content becomes a hard link:
    /// `vlan-bridge` then recognises `vlan-bridge-ipam` as itself, and runs it in its own process. A file
    /// system without hard links gets a copy.
    pub(crate) fn install(&self) -> Result<()> {
        let is_linked =
            self.same_as.as_ref().is_some_and(|other| files::hard_link(other, &self.target).is_ok());
        if is_linked || self.unchanged {
            return Ok(());
        }
        files::write_atomically(&self.target, &self.content, 0o755)
    }

    fn state(&self) -> &'static str {
        match (&self.before, self.unchanged) {
            (_, true) => "unchanged",
            (None, _) => "new",
            (Some(_), _) => "replaced",
        }
    }

    /// For `-o json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"path": self.target, "version": self.version, "before": self.before, "state": self.state()})
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9} {}: {}", self.state(), self.target.display(), self.version)?;
        match &self.before {
            Some(before) if !self.unchanged => write!(f, ", before {before}"),
            _ => Ok(()),
        }
    }
}
