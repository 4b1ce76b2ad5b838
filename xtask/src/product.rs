//! Building the binaries that we ship.

use crate::command::{cargo, output, run};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shipped files that are programs.
pub(crate) const BINARIES: [&str; 3] = ["vlan-bridge", IPAM, "vlan-bridgectl"];
/// Both plugins are one program. This name is a hard link to the first, so the first knows that it need not
/// execute it.
pub(crate) const IPAM: &str = "vlan-bridge-ipam";
/// The packages that have a program of their own, of the same name.
pub(crate) const PACKAGES: [&str; 2] = ["vlan-bridge", "vlan-bridgectl"];

/// The C library of the static binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Libc {
    /// The shipped one, because it starts faster.
    Musl,
    /// Static glibc, for toolchains without the musl target.
    Gnu,
}

impl Libc {
    /// musl where the toolchain has it or can add it.
    pub(crate) fn best() -> Libc {
        if add_target(&Libc::Musl.triple()) { Libc::Musl } else { Libc::Gnu }
    }

    pub(crate) fn triple(self) -> String {
        let libc = match self {
            Libc::Musl => "musl",
            Libc::Gnu => "gnu",
        };
        format!("{}-unknown-linux-{libc}", std::env::consts::ARCH)
    }

    /// The compiler flags for a static binary.
    fn flags(self) -> &'static str {
        match self {
            Libc::Musl => "",
            Libc::Gnu => "-C target-feature=+crt-static",
        }
    }
}

/// Whether the toolchain has the target now.
fn add_target(triple: &str) -> bool {
    is_installed(triple)
        || output(Command::new("rustup").args(["target", "add", triple])).is_ok() && is_installed(triple)
}

fn is_installed(triple: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    output(Command::new(rustc).args(["--print", "target-libdir", "--target", triple]))
        .is_ok_and(|dir| PathBuf::from(dir.trim()).is_dir())
}

/// The folder with the binaries under test: `VLAN_BRIDGE_BIN`, or a fresh build.
pub(crate) fn ready() -> Result<PathBuf> {
    match std::env::var_os("VLAN_BRIDGE_BIN") {
        Some(folder) => {
            eprintln!("nothing is built: VLAN_BRIDGE_BIN is set to {}", folder.display());
            let folder = workspace::root().join(folder);
            if !folder.join(IPAM).exists() {
                link_ipam(&folder)?;
            }
            Ok(folder)
        }
        None => build(Libc::best()),
    }
}

/// Builds the shipped binaries, release profile and static, and returns the folder that holds them.
pub(crate) fn build(libc: Libc) -> Result<PathBuf> {
    build_target(&libc.triple(), libc.flags(), Profile::Release, &[])
}

/// The same with glibc in the dev profile, as a check that static linking works. Optimising it would take
/// minutes.
pub(crate) fn try_fallback() -> Result<PathBuf> {
    build_target(&Libc::Gnu.triple(), Libc::Gnu.flags(), Profile::Dev, &[])
}

/// The same for another architecture, with musl. The toolchain has the linker. `compiler` names a compiler
/// for the C code.
pub(crate) fn cross_build(arch: &str, compiler: &[(String, PathBuf)]) -> Result<PathBuf> {
    let triple = cross_triple(arch);
    ensure!(add_target(&triple), "the toolchain has no target {triple} and cannot add it");
    build_target(&triple, "-C linker=rust-lld", Profile::Release, compiler)
}

/// The target of another architecture.
pub(crate) fn cross_triple(arch: &str) -> String {
    format!("{arch}-unknown-linux-musl")
}

/// A profile of the workspace's Cargo.toml.
#[derive(Clone, Copy)]
enum Profile {
    Release,
    Dev,
}

/// Builds for a target triple, with flags for the compiler on top of `RUSTFLAGS`, and returns the folder of
/// the binaries.
fn build_target(
    triple: &str,
    flags: &str,
    profile: Profile,
    environment: &[(String, PathBuf)],
) -> Result<PathBuf> {
    let (profile, folder) = match profile {
        Profile::Release => ("release", "release"),
        Profile::Dev => ("dev", "debug"),
    };
    let mut command = cargo();
    command.args(["build", "--quiet", "--profile", profile, "--target", triple]);
    for name in PACKAGES {
        command.args(["--package", name]);
    }
    let flags = format!("{} {flags}", std::env::var("RUSTFLAGS").unwrap_or_default());
    if !flags.trim().is_empty() {
        command.env("RUSTFLAGS", flags);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    eprintln!("building {} for {triple}: a few minutes the first time", PACKAGES.join(" and "));
    run(&mut command)?;
    let folder = workspace::target().join(triple).join(folder);
    link_ipam(&folder)?;
    for binary in PACKAGES.map(|name| folder.join(name)) {
        ensure!(is_static(&binary)?, "{} is not static", binary.display());
    }
    Ok(folder)
}

/// Makes `vlan-bridge-ipam` a hard link to the folder's `vlan-bridge`.
pub(crate) fn link_ipam(folder: &Path) -> Result<()> {
    let (program, ipam) = (folder.join(PACKAGES[0]), folder.join(IPAM));
    let _ = std::fs::remove_file(&ipam);
    std::fs::hard_link(&program, &ipam)
        .with_context(|| format!("cannot link {} to {}", ipam.display(), program.display()))
}

/// Whether a binary needs no dynamic loader.
fn is_static(binary: &Path) -> Result<bool> {
    const LOADERS: [&[u8]; 2] = [b"/ld-linu", b"/ld-musl"];
    let bytes = std::fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    Ok(!bytes.windows(LOADERS[0].len()).any(|window| LOADERS.contains(&window)))
}
