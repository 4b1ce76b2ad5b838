//! The libcni client: our small driver (`integration/client`), built over the packaged library with the
//! packaged Go toolchain, both from sid and both only unpacked.

use super::{once, sid, unpack};
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
    let library = once("libcni", |dir| unpack(&sid::download(&["golang-github-appc-cni-dev"])?, dir))?;
    let go = toolchain()?;
    eprintln!("building the libcni client ...");
    let mut command = Command::new(go.join("bin/go"));
    command.env("GOROOT", &go).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    // The package is laid out as a GOPATH and its dependencies are its own packages: no module is fetched.
    command.env("GO111MODULE", "off").env("GOPATH", library.join("usr/share/gocode")).env("GOFLAGS", "");
    command.env("GOCACHE", workspace::rig().join("go-cache")).env("GOTELEMETRY", "off");
    command
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&binary)
        .arg("main.go")
        .current_dir(&source);
    run(&mut command)?;
    fs::write(&stamp, text).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(binary)
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
