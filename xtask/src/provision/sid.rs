//! Packages of Debian's unstable release.
//!
//! Stable's reference plugins and libcni are too old to speak the specification's version 1.1.0.

use super::{apt, release};
use anyhow::Result;
use std::path::PathBuf;

/// Downloads packages of sid into a folder of their own.
pub(super) fn download(packages: &[&str]) -> Result<PathBuf> {
    let packages: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
    apt::download(&packages, &options()?)
}

/// The first package that `package` of sid depends on whose name starts with `prefix`.
pub(super) fn dependency(package: &str, prefix: &str) -> Result<String> {
    apt::dependency_with(package, prefix, &options()?)
}

fn options() -> Result<Vec<String>> {
    release::options("sid", "deb", "sid")
}
