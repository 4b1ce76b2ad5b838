//! apt, for the machine's own release, and with our own configuration for another release.

use crate::command::{output, run};
use crate::workspace;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that the tests call, and their packages. Installed programs are left alone.
const PROGRAMS: [(&str, &str); 11] = [
    ("bash", "bash"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
    ("tcpdump", "tcpdump"),
    ("time", "time"),
];

/// The emulator, needed only when a guest is booted.
const EMULATOR: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// Installs the programs that the rig calls and this machine lacks.
pub(crate) fn install_programs(with_emulator: bool) -> Result<()> {
    let mut wanted = PROGRAMS.to_vec();
    if with_emulator {
        wanted.push(EMULATOR);
    }
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {} ...", missing.join(" "));
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["install", "-y", "--no-install-recommends"]).args(&missing);
        output(&mut command)
    };
    with_fresh_lists(&[], install).with_context(|| {
        format!("as root, run: apt-get install --no-install-recommends {}", missing.join(" "))
    })?;
    Ok(())
}

/// The path of a program. Unlike `which`, this also looks in the folders for administrators.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}

/// The first package that `package` depends on whose name starts with `prefix`: the package behind a
/// metapackage.
pub(super) fn dependency(package: &str, prefix: &str) -> Result<String> {
    dependency_with(package, prefix, &[])
}

/// [`dependency`] with options for apt.
pub(super) fn dependency_with(package: &str, prefix: &str, options: &[String]) -> Result<String> {
    with_fresh_lists(options, || {
        let mut command = Command::new("apt-cache");
        command.args(options).args(["depends", "--important", package]);
        output(&mut command)?
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .ok_or_else(|| anyhow!("{package} depends on no {prefix}* package"))
    })
}

/// Downloads packages and all that they need and this machine lacks, without installing them.
pub(super) fn download_missing(packages: &[&str]) -> Result<PathBuf> {
    let dir = folder()?;
    fs::create_dir_all(dir.join("partial")).with_context(|| format!("cannot make {}", dir.display()))?;
    with_fresh_lists(&[], || {
        let mut command = Command::new("apt-get");
        command.arg("-o").arg(format!("Dir::Cache::Archives={}", dir.display()));
        command.args(["-o", "APT::Sandbox::User=root", "--no-install-recommends", "-y"]);
        // An installed package is fetched too.
        command.args(["--download-only", "--reinstall", "install"]).args(packages);
        output(&mut command)
    })?;
    Ok(dir)
}

/// Downloads packages, without installing them, into a folder of their own.
pub(super) fn download(packages: &[String], options: &[String]) -> Result<PathBuf> {
    let dir = folder()?;
    with_fresh_lists(options, || {
        let mut command = Command::new("apt-get");
        command.current_dir(&dir).args(options);
        // apt's own user may be unable to read our folder, so its warning about that is dropped.
        command.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages);
        output(&mut command)
    })?;
    Ok(dir)
}

/// Downloads the source of a package as its authors publish it, whose sum apt checks, into a folder of its
/// own.
pub(super) fn download_source(package: &str, options: &[String]) -> Result<PathBuf> {
    let dir = folder()?;
    with_fresh_lists(options, || {
        let mut command = Command::new("apt-get");
        command.current_dir(&dir).args(options);
        command.args(["-o", "APT::Sandbox::User=root", "--download-only", "--tar-only", "source", package]);
        output(&mut command)
    })?;
    Ok(dir)
}

/// An empty folder for downloads.
fn folder() -> Result<PathBuf> {
    let dir = workspace::rig().join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Runs `action`. If it fails, runs it again after `apt-get update`: a new machine has no lists, and an old
/// one may have outdated lists.
fn with_fresh_lists<T>(options: &[String], action: impl Fn() -> Result<T>) -> Result<T> {
    action().or_else(|_| {
        run(Command::new("apt-get").args(options).args(["-qq", "update"]))?;
        action()
    })
}
