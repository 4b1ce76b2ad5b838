//! `cargo xtask bench`: our plugins' speed beside the reference's.

use crate::{product, provision, suite, workspace};
use anyhow::{Context, Result, anyhow};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What to time instead of ADD and DEL.
#[derive(Clone, Debug, clap::ValueEnum)]
pub(crate) enum Instead {
    /// The IPAM plugins alone, with 0 to 60,000 addresses held
    Ipam,
    /// NAT mode with two host ports a pod, with 0 and 250 pods there, and a connection to a host port
    Paths,
    /// What the agent costs on a node with 250 pods, and how soon it restores rules
    Agent,
    /// Shared pools with a real etcd: claims at the same time, ADDs that find nothing, an agent at rest
    Pool,
}

/// Runs the verb.
pub(crate) fn main(instead: Option<&Instead>) -> Result<ExitCode> {
    let bench = match instead {
        None => "bench",
        Some(Instead::Ipam) => "bench_ipam",
        Some(Instead::Paths) => "bench_paths",
        Some(Instead::Agent) => "bench_agent",
        Some(Instead::Pool) => "bench_pool",
    };
    provision::install_programs(false)?;
    let product = installed(&product::ready()?)?;
    let mut command = Command::new(suite::build(["--bin", bench])?);
    provision::tell(&mut command, &product)?;
    println!("reference plugins: Debian's containernetworking-plugins {}", provision::peers_version()?);
    let code = command.status()?.code().ok_or_else(|| anyhow!("the bench was killed"))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// A copy of the binaries, as an installation makes one. The linker's own file started 7 % slower than a copy
/// in a measurement, because the kernel caches it in the small pieces in which it was written.
fn installed(product: &Path) -> Result<PathBuf> {
    let folder = workspace::rig().join("installed");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in product::BINARIES.into_iter().filter(|name| *name != product::IPAM) {
        let (from, to) = (product.join(name), folder.join(name));
        let bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        // The old file is removed first, because an overwritten file keeps its pieces.
        let _ = fs::remove_file(&to);
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))?;
    }
    product::link_ipam(&folder)?;
    Ok(folder)
}
