//! Container runtimes as Debian packages them, only unpacked: installed, they would start services on this
//! machine.

use super::{apt, once, sid, unpack};
use crate::oci::{Content, File, Image};
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder with the unpacked packages of each runtime in its own folder, and the image for all of them.
///
/// | folder | what |
/// |---|---|
/// | `containerd` | the machine's own release's: 1.6 on Debian 12 |
/// | `containerd-sid` | 2.x, with the own release's runc, as sid's needs sid's C library |
/// | `podman` | the machine's own release's: 4.3 on Debian 12, with slirp4netns for users other than root |
pub(crate) fn runtimes() -> Result<PathBuf> {
    once("runtimes", |dir| {
        fill(dir, "containerd", &apt::download_missing(&["containerd", "runc"])?)?;
        fill(dir, "containerd-sid", &apt::download_missing(&["runc"])?)?;
        fill(dir, "containerd-sid", &sid::download(&["containerd"])?)?;
        fill(dir, "podman", &apt::download_missing(&["podman", "crun", "slirp4netns", "uidmap"])?)?;
        fs::write(dir.join("pod.tar"), image()?).context("cannot write the image")
    })
}

/// The files of each runtime that a guest needs. All files would not fit into the guest's memory.
const FOR_GUEST: [(&str, &[&str]); 3] = [
    ("containerd", &CONTAINERD_FOR_GUEST),
    ("containerd-sid", &CONTAINERD_FOR_GUEST),
    ("podman", &["etc/containers", "usr/bin", "usr/lib", "usr/share/containers"]),
];
const CONTAINERD_FOR_GUEST: [&str; 5] =
    ["etc", "usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr", "usr/sbin"];

/// The runtimes for a guest: path here, path in the guest below `there`.
pub(crate) fn for_guest(there: &str) -> Result<Vec<(PathBuf, String)>> {
    let dir = runtimes()?;
    let mut files = vec![dir.join("pod.tar")];
    for (runtime, parts) in FOR_GUEST {
        for part in parts {
            collect(&dir.join(runtime).join(part), &mut files)?;
        }
    }
    // The reference plugins that come with podman are not called.
    files.retain(|file| !file.components().any(|part| part.as_os_str() == "cni"));
    let place = |file: PathBuf| {
        let below = file.strip_prefix(&dir).unwrap_or(&file).display().to_string();
        (file, format!("{there}/{below}"))
    };
    Ok(files.into_iter().map(place).collect())
}

/// A file, or every file below a folder, links followed.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
    } else if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            collect(&entry?.path(), files)?;
        }
    }
    Ok(())
}

/// Unpacks the downloads over the existing files.
fn fill(dir: &Path, name: &str, packages: &Path) -> Result<()> {
    let dir = dir.join(name);
    for part in ["etc", "usr"] {
        fs::create_dir_all(dir.join(part)).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    unpack(packages, &dir)
}

/// The image for the runtimes: busybox, serving a greeting on port 80.
fn image() -> Result<Vec<u8>> {
    let busybox = apt::find("busybox").ok_or_else(|| anyhow!("busybox is not on this machine"))?;
    let content = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let files = [
        File { path: "bin/busybox".into(), mode: 0o755, content: Content::Bytes(content) },
        File { path: "www/index.html".into(), mode: 0o644, content: Content::Bytes(b"a pod\n".into()) },
    ];
    let image = Image {
        name: "localhost/pod:1",
        arch: std::env::consts::ARCH,
        entrypoint: &["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"],
        labels: json!({}),
        files: &files,
    };
    image.archive()
}
