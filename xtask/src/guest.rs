//! A guest kernel with features that the running kernel may lack: bonding, 802.1q, VLAN-filtering bridges.
//!
//! The guest has no disk and no network. Its only file system is an initramfs that is put together for each
//! boot from the machine's own programs, the kernel's modules and what the caller adds.

mod archive;
mod console;
mod modules;
mod qemu;
mod userland;

use crate::provision::{self, Kernel};
use crate::workspace;
use anyhow::{Context, Result};
use archive::Archive;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the product's binaries are in the guest.
pub(crate) const PRODUCT: &str = "/opt/vlan-bridge";
/// Where the reference plugins are in the guest.
pub(crate) const PEERS: &str = "/opt/cni";
/// Where the libcni client is in the guest.
pub(crate) const CLIENT: &str = "/opt/client/cni-client";

/// The task of one boot.
pub(crate) struct Job {
    /// The command and its arguments; empty for a shell.
    pub(crate) command: Vec<String>,
    /// The command's environment, on top of PATH, HOME and the rig's own variables.
    pub(crate) environment: Vec<(String, String)>,
    /// Programs of the machine for the guest: path here, path in the guest.
    pub(crate) programs: Vec<(PathBuf, String)>,
    /// The time limit.
    pub(crate) deadline: Duration,
}

/// The error of a guest whose kernel ended because one of its CPUs was stuck, with the kernel's console.
#[derive(Debug, Default)]
pub(crate) struct LockedUp(String);

impl fmt::Display for LockedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the emulated kernel locked up\n{}", self.0)
    }
}

impl std::error::Error for LockedUp {}

/// Boots a guest, runs the job, hands every line of its output to `line`, and returns the command's exit
/// code. It is an error if the guest ends without reporting a code, or not in time. The error is [`LockedUp`]
/// if its kernel locked up.
pub(crate) fn run(job: &Job, product: &Path, line: &mut dyn FnMut(&str)) -> Result<i32> {
    let kernel = provision::kernel()?;
    let dir = workspace::rig().join(format!("guest-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let image = dir.join("initramfs.cpio");
    let outcome = assemble(job, product, &kernel)
        .and_then(|archive| fs::write(&image, archive.finish()).context("cannot write the initramfs"))
        .and_then(|()| qemu::boot(&kernel.image, &image, &dir, job, line));
    // The error of a failed boot contains its console.
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    outcome
}

/// The guest's whole file system.
fn assemble(job: &Job, product: &Path, kernel: &Kernel) -> Result<Archive> {
    let mut archive = Archive::new();
    userland::add_base(&mut archive)?;
    modules::add(&mut archive, kernel)?;
    archive.file("init", 0o755, include_bytes!("guest/init.sh"));
    archive.file("job", 0o755, script(job).as_bytes());
    if job.command.is_empty() {
        archive.file("interactive", 0o644, b"");
    }
    // The guest's init links the other.
    for name in crate::product::BINARIES.into_iter().filter(|name| *name != crate::product::IPAM) {
        userland::add_program(&mut archive, &product.join(name), &format!("{PRODUCT}/{name}"))?;
    }
    let peers = provision::peers()?;
    for entry in fs::read_dir(&peers).with_context(|| format!("cannot read {}", peers.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        userland::add_program(&mut archive, &entry.path(), &format!("{PEERS}/{name}"))?;
    }
    userland::add_program(&mut archive, &provision::client()?, CLIENT)?;
    for (here, there) in &job.programs {
        userland::add_program(&mut archive, here, there)?;
    }
    Ok(archive)
}

/// The script that the guest's init runs.
fn script(job: &Job) -> String {
    let mut text = String::from("#!/bin/bash\n");
    let rig = [("VLAN_BRIDGE_BIN", PRODUCT), ("CNI_PEERS", PEERS), ("CNI_CLIENT", CLIENT)];
    let own = job.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in rig.into_iter().chain(own) {
        text += &format!("export {name}={}\n", quoted(value));
    }
    if job.command.is_empty() {
        text += "exec bash -i\n";
    } else {
        let words: Vec<String> = job.command.iter().map(|word| quoted(word)).collect();
        text += &format!("exec {}\n", words.join(" "));
    }
    text
}

/// Quotes one word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_whole() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
