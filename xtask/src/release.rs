//! `cargo xtask release`: a version, its files, and the commands that make it a commit and a tag.

mod changelog;
mod version;

use crate::command::{cargo, output, run};
use crate::{deny, dist, workspace};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use version::Version;

/// The files that have the version, other than the changelog. The last is a workspace of its own, which uses
/// crates of this one.
const MANIFEST: &str = "Cargo.toml";
const LOCKS: [&str; 2] = ["Cargo.lock", "fuzz/libfuzzer/Cargo.lock"];
const CHANGELOG: &str = "CHANGELOG.md";

/// What to release.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The version, such as 0.2.0
    version: String,
    /// Do not ask the database of known vulnerabilities, for a machine that cannot reach it
    #[arg(long)]
    without_advisories: bool,
}

/// Runs the verb.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let version: Version = options.version.parse()?;
    ensure_clean()?;
    let edits = edits(version)?;
    deny::check()?;
    if !options.without_advisories {
        deny::check_advisories().context("--without-advisories leaves this check out")?;
    } else {
        eprintln!("not checked: known vulnerabilities of the crates");
    }
    let outcome =
        edits.iter().try_for_each(|edit| write(edit, &edit.after)).and_then(|()| give_away(version));
    if let Err(error) = outcome {
        edits.iter().try_for_each(|edit| write(edit, &edit.before))?;
        return Err(error);
    }
    println!("\nLook at the files above and at `git diff`. These commit and tag the release:\n");
    println!("    git commit -am 'Release {version}'\n    git tag -a v{version} -m 'vlan-bridge {version}'");
    Ok(ExitCode::SUCCESS)
}

fn git(args: &[&str]) -> Result<String> {
    output(Command::new("git").args(args).current_dir(workspace::root()))
}

fn ensure_clean() -> Result<()> {
    let changes = git(&["status", "--porcelain"])?;
    ensure!(changes.is_empty(), "commit or remove these first:\n{}", changes.trim_end());
    Ok(())
}

/// A file that the release changes.
struct Edit {
    path: PathBuf,
    before: String,
    after: String,
}

fn write(edit: &Edit, text: &str) -> Result<()> {
    fs::write(&edit.path, text).with_context(|| format!("cannot write {}", edit.path.display()))
}

/// All changes of the release, not made yet.
fn edits(version: Version) -> Result<Vec<Edit>> {
    let read = |name: &str| {
        let path = workspace::root().join(name);
        let before = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        Ok::<_, anyhow::Error>(Edit { path, after: before.clone(), before })
    };
    let (mut manifest, mut log) = (read(MANIFEST)?, read(CHANGELOG)?);
    ensure_newer(version, env!("CARGO_PKG_VERSION").parse()?, changelog::newest(&log.before))?;
    let tag = format!("v{version}");
    ensure!(git(&["tag", "--list", &tag])?.is_empty(), "the tag {tag} is there already");
    manifest.after = version::in_manifest(&manifest.before, version)?;
    log.after = changelog::dated(&log.before, version, &today()?)?;
    let (mut edits, members) = (vec![manifest, log], members()?);
    for name in LOCKS {
        let mut lock = read(name)?;
        lock.after = version::in_lock(&lock.before, &members, version);
        edits.push(lock);
    }
    Ok(edits)
}

/// The first release may have the version that the workspace began with.
fn ensure_newer(version: Version, current: Version, released: Option<Version>) -> Result<()> {
    if let Some(released) = released.filter(|released| version <= *released) {
        bail!("{version} is not newer than {released}, the last release in {CHANGELOG}");
    }
    ensure!(version >= current, "{version} is older than {current} in {MANIFEST}");
    Ok(())
}

/// The date in UTC, as in all logs.
fn today() -> Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned())
}

/// The names of the workspace's packages.
fn members() -> Result<Vec<String>> {
    let text = output(cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` printed no JSON")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    Ok(packages.iter().filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}

/// Makes the files in a newly built process, because this one contains the old version. A release has all
/// architectures.
fn give_away(version: Version) -> Result<()> {
    output(cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    run(cargo().args(["xtask", "dist"]))?;
    for arch in dist::ARCHITECTURES {
        let archive = format!("{}.tar.gz", dist::name(&version.to_string(), arch));
        ensure!(workspace::target().join("dist").join(&archive).is_file(), "{archive} was left out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_newer_than_the_last_and_than_the_manifest() {
        let is_newer = |version: [u32; 3], current: [u32; 3], released: Option<[u32; 3]>| {
            ensure_newer(Version(version), Version(current), released.map(Version)).is_ok()
        };
        assert!(is_newer([0, 1, 0], [0, 1, 0], None));
        assert!(is_newer([0, 1, 1], [0, 1, 0], Some([0, 1, 0])));
        assert!(!is_newer([0, 1, 0], [0, 1, 0], Some([0, 1, 0])));
        assert!(!is_newer([0, 0, 9], [0, 1, 0], None));
        assert!(!is_newer([0, 9, 0], [0, 1, 0], Some([0, 10, 0])));
    }
}
