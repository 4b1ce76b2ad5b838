//! firewalld as Debian packages it, only unpacked: installed, it would start a service that changes this
//! machine's firewall.

use super::{apt, once, unpack};
use crate::command::run;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// The folder that it is unpacked in, with all that it needs and this machine lacks.
pub(super) fn firewalld() -> Result<PathBuf> {
    once("firewalld", |dir| {
        unpack(&apt::download_missing(&["firewalld", "dbus-daemon"])?, dir)?;
        // Debian 12 has packages with libraries in /lib, which is a link to /usr/lib on every machine.
        if dir.join("lib").is_dir() {
            run(Command::new("cp").arg("-a").arg(dir.join("lib/.")).arg(dir.join("usr/lib")))?;
        }
        Ok(())
    })
}
