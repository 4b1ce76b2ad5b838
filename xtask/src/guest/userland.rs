//! The guest's programs: the machine's own, with the libraries that they load.

use super::archive::Archive;
use crate::command::output;
use crate::provision;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Real programs. busybox provides all others.
const PROGRAMS: [&str; 11] =
    ["bash", "bridge", "busybox", "ip", "nft", "nsenter", "ping", "strace", "tc", "tcpdump", "unshare"];

/// Adds folders, programs and the few files that programs look for.
pub(super) fn add_base(archive: &mut Archive) -> Result<()> {
    for dir in
        ["proc", "sys", "dev", "run", "tmp", "root", "var/lib", "var/log", "usr/bin", "usr/lib", "usr/lib64"]
    {
        archive.dir(dir);
    }
    // One folder of programs, by every name that real systems use.
    for (link, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("usr/sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
    ] {
        archive.symlink(link, to);
    }
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/bash\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost guest\n");
    archive.file("etc/resolv.conf", 0o644, b"");
    for name in PROGRAMS {
        let path = provision::find_program(name).ok_or_else(|| anyhow!("{name} is not on this machine"))?;
        add_program(archive, &path, &format!("usr/bin/{name}"))?;
    }
    let busybox =
        provision::find_program("busybox").ok_or_else(|| anyhow!("busybox is not on this machine"))?;
    for applet in output(Command::new(busybox).arg("--list"))?.lines() {
        archive.symlink(&format!("usr/bin/{applet}"), "busybox");
    }
    Ok(())
}

/// Adds a program and its libraries.
pub(super) fn add_program(archive: &mut Archive, here: &Path, there: &str) -> Result<()> {
    let content = fs::read(here).with_context(|| format!("cannot read {}", here.display()))?;
    archive.file(there, 0o755, &content);
    // ldd fails on static binaries and scripts, which need no library.
    let listed = output(Command::new("ldd").arg(here)).unwrap_or_default();
    for library in libraries(&listed) {
        let target = library.strip_prefix("/usr").unwrap_or(library);
        let target = format!("usr{target}");
        if !archive.has(&target) {
            let content = fs::read(library).with_context(|| format!("cannot read {library}"))?;
            archive.file(&target, 0o755, &content);
        }
    }
    Ok(())
}

/// The paths in ldd's output: `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux.so.2 (0x…)`.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_out_of_ldd() {
        let listed =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
    }
}
