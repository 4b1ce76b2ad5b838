//! Everything the rig needs that is not in this repository: packages of the machine's own distribution, a
//! kernel with bonding and VLANs, the reference plugins, and a client built from the packaged libcni.
//!
//! Programs are installed with apt. The rest is unpacked once, under the target folder. Each folder is filled
//! under another name and then renamed, so an existing folder is complete.

mod apt;
mod client;
mod cross;
mod etcd;
mod firewalld;
mod kubernetes;
mod old_iptables;
mod release;
mod runtimes;
mod sid;

pub(crate) use apt::{find as find_program, install_programs};
pub(crate) use client::cnitool;
pub(crate) use cross::cross_compiler;
pub(crate) use kubernetes::kubernetes;
pub(crate) use runtimes::{for_guest as runtimes_for_guest, runtimes};

use crate::command::{output, run};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// The kernel's release, as `uname -r` will say.
    pub(crate) release: String,
    /// The compressed kernel image.
    pub(crate) image: PathBuf,
    /// `lib/modules/<release>`, with `modules.dep` in it.
    pub(crate) modules: PathBuf,
}

/// Debian's cloud kernel. It is small and has every module that the tests need.
pub(crate) fn kernel() -> Result<Kernel> {
    let dir = once("kernel", |dir| {
        let package = apt::dependency("linux-image-cloud-amd64", "linux-image-")?;
        unpack(&apt::download(&[package], &[])?, dir)?;
        let release = only_entry(&dir.join("lib/modules"))?;
        // The package would do this in its postinst.
        run(Command::new("depmod").arg("--basedir").arg(dir).arg(&release))
    })?;
    let release = only_entry(&dir.join("lib/modules"))?;
    Ok(Kernel {
        image: dir.join(format!("boot/vmlinuz-{release}")),
        modules: dir.join("lib/modules").join(&release),
        release,
    })
}

/// The folder of the reference plugins (bridge, host-local, tuning, portmap and so on).
pub(crate) fn peers() -> Result<PathBuf> {
    Ok(peers_package()?.join("usr/lib/cni"))
}

/// The version of the package that the reference plugins come from.
pub(crate) fn peers_version() -> Result<String> {
    let path = peers_package()?.join("version");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The tool of Prometheus that checks and tests rules, only unpacked: the package would start a service.
fn promtool() -> Result<PathBuf> {
    let package = once("prometheus", |dir| unpack(&apt::download(&["prometheus".to_owned()], &[])?, dir))?;
    Ok(package.join("usr/bin/promtool"))
}

fn peers_package() -> Result<PathBuf> {
    once("peers", |dir| {
        let packages = sid::download(&["containernetworking-plugins"])?;
        let package = packages.join(only_entry(&packages)?);
        let version = output(Command::new("dpkg-deb").arg("--field").arg(package).arg("Version"))?;
        fs::write(dir.join("version"), version)
            .context("cannot note the version of the reference plugins")?;
        unpack(&packages, dir)
    })
}

/// The libcni client, a static binary.
pub(crate) fn client() -> Result<PathBuf> {
    client::build()
}

/// Fails unless the running kernel has the features that the data centre needs.
pub(crate) fn ensure_native() -> Result<()> {
    let kinds =
        ["add probe type bond", "add link lo probe type vlan id 2", "add probe type bridge vlan_filtering 1"];
    for kind in kinds {
        let mut command = Command::new("unshare");
        command.args(["--net", "ip", "link"]).args(kind.split(' '));
        output(&mut command).context("this kernel cannot be the data centre's: run without --native")?;
    }
    Ok(())
}

/// Passes all paths to a program of the integration crate, in its environment.
pub(crate) fn tell(command: &mut Command, product: &Path) -> Result<()> {
    command.env("VLAN_BRIDGE_BIN", product).env("CNI_PEERS", peers()?).env("CNI_CLIENT", client()?);
    command.env("CNI_RUNTIMES", runtimes()?).env("IPTABLES_OLD", old_iptables::old_iptables()?);
    command.env("PROMTOOL", promtool()?).env("FIREWALLD", firewalld::firewalld()?);
    command.env("ETCD", etcd::etcd()?);
    // Only one verb needs it, and builds it first.
    let kubernetes = workspace::rig().join("kubernetes");
    if kubernetes.is_dir() {
        command.env("CNI_KUBERNETES", kubernetes);
    }
    Ok(())
}

/// Fills `target/rig/<name>` unless it is there already.
fn once(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let done = workspace::rig().join(name);
    if done.is_dir() {
        return Ok(done);
    }
    eprintln!("fetching {name} ...");
    let filling = workspace::rig().join(format!("{name}.partial"));
    if filling.exists() {
        fs::remove_dir_all(&filling).with_context(|| format!("cannot clear {}", filling.display()))?;
    }
    fs::create_dir_all(&filling).with_context(|| format!("cannot make {}", filling.display()))?;
    fill(&filling)?;
    fs::rename(&filling, &done).with_context(|| format!("cannot rename to {}", done.display()))?;
    Ok(done)
}

/// Unpacks every package of a download folder into `dir`, then removes the downloads.
fn unpack(packages: &Path, dir: &Path) -> Result<()> {
    let mut count = 0;
    for entry in fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(dir))?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("nothing was downloaded to {}", packages.display());
    }
    fs::remove_dir_all(packages).with_context(|| format!("cannot remove {}", packages.display()))
}

/// The name of the single entry of a folder.
fn only_entry(dir: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    match names.as_slice() {
        [name] => Ok(name.clone()),
        _ => bail!("{} should hold one entry, holds {names:?}", dir.display()),
    }
}
