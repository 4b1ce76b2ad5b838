//! etcd and its client, etcdctl, as Debian packages them, only unpacked: installed, it would start a service.
//! Stable's is a release that its authors no longer maintain.

use super::{once, sid, unpack};
use anyhow::Result;
use std::path::PathBuf;

/// The folder with the two programs.
pub(super) fn etcd() -> Result<PathBuf> {
    let packages = once("etcd", |dir| unpack(&sid::download(&["etcd-server", "etcd-client"])?, dir))?;
    Ok(packages.join("usr/bin"))
}
