//! The programs that call plugins through libcni: our small client (`integration/client`) and cnitool. Both
//! are built with Debian sid's packaged library and Go toolchain, which are only unpacked.

use super::{apt, once, only_entry, release, sid, unpack};
use crate::command::run;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the client, or returns the one built from the same source before.
pub(super) fn build() -> Result<PathBuf> {
    let source = workspace::root().join("integration/client");
    let text = fs::read_to_string(source.join("main.go")).context("cannot read the client's source")?;
    let built = workspace::rig().join("client");
    let (binary, stamp) = (built.join("cni-client"), built.join("main.go"));
    if binary.is_file() && fs::read_to_string(&stamp).is_ok_and(|before| before == text) {
        return Ok(binary);
    }
    eprintln!("building the libcni client ...");
    go_build(&source, "main.go", &binary)?;
    fs::write(&stamp, text).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(binary)
}

/// cnitool. It is in the source of the packaged library, but in no binary package.
pub(crate) fn cnitool() -> Result<PathBuf> {
    let built = once("cnitool", |dir| {
        let downloads = apt::download_source("golang-github-appc-cni", &release::sid_sources()?)?;
        let archive = downloads.join(only_entry(&downloads)?);
        let mut tar = Command::new("tar");
        run(tar.arg("-xf").arg(archive).arg("-C").arg(dir).arg("--strip-components=1"))?;
        go_build(&dir.join("cnitool"), "cnitool.go", &dir.join("built"))?;
        fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))
    })?;
    Ok(built.join("built"))
}

/// Builds one program of one file over the packaged libcni.
fn go_build(source: &Path, file: &str, binary: &Path) -> Result<()> {
    let library = once("libcni", |dir| unpack(&sid::download(&["golang-github-appc-cni-dev"])?, dir))?;
    let go = toolchain()?;
    let mut command = Command::new(go.join("bin/go"));
    command.env("GOROOT", &go).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    // The package is laid out as a GOPATH and its dependencies are its own packages: no module is fetched.
    command.env("GO111MODULE", "off").env("GOPATH", library.join("usr/share/gocode")).env("GOFLAGS", "");
    command.env("GOCACHE", workspace::rig().join("go-cache")).env("GOTELEMETRY", "off");
    command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(binary).arg(file);
    run(command.current_dir(source))
}

/// GOROOT of the unpacked toolchain.
fn toolchain() -> Result<PathBuf> {
    let dir = once("go", |dir| {
        // golang-go -> golang-1.27-go -> golang-1.27-src
        let compiler = sid::dependency("golang-go", "golang-1.")?;
        let library = sid::dependency(&compiler, "golang-1.")?;
        unpack(&sid::download(&[&compiler, &library])?, dir)
    })?;
    only_goroot(&dir.join("usr/lib"))
}

fn only_goroot(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.join("bin/go").is_file() {
            return Ok(path);
        }
    }
    bail!("no Go toolchain in {}", dir.display())
}
