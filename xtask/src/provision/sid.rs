//! Packages of Debian's unstable release, by an apt configuration of our own: nothing system-wide changes.
//!
//! Stable's reference plugins and libcni are too old to speak the specification's version 1.1.0.

use super::apt;
use crate::command::output;
use crate::workspace;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Downloads packages of sid into a folder of their own.
pub(super) fn download(packages: &[&str]) -> Result<PathBuf> {
    let packages: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
    apt::download(&packages, &options()?)
}

/// The first package that `package` of sid depends on whose name starts with `prefix`.
pub(super) fn dependency(package: &str, prefix: &str) -> Result<String> {
    apt::dependency_with(package, prefix, &options()?)
}

/// The options that make apt look at sid alone, with lists and caches under the target folder.
fn options() -> Result<Vec<String>> {
    let dir = workspace::rig().join("sid");
    for sub in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let sources = dir.join("sid.sources");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let text =
        format!("Types: deb\nURIs: {}\nSuites: sid\nComponents: main\nSigned-By: {keyring}\n", mirror()?);
    fs::write(&sources, text).with_context(|| format!("cannot write {}", sources.display()))?;

    let at = |sub: &str| dir.join(sub).display().to_string();
    let settings = [
        format!("Dir::Etc::SourceList={}", sources.display()),
        "Dir::Etc::SourceParts=/dev/null".into(),
        "Dir::Etc::Preferences=/dev/null".into(),
        "Dir::Etc::PreferencesParts=/dev/null".into(),
        format!("Dir::State::Lists={}", at("lists")),
        format!("Dir::Cache={}", at("")),
        format!("Dir::Cache::Archives={}", at("archives")),
        "APT::Default-Release=".into(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
    ];
    Ok(settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect())
}

/// The mirror this machine takes its own release from. apt is asked, as it alone reads every form of its sources.
fn mirror() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME) $(SUITE) $(COMPONENT)"]);
    let targets = output(command.arg("Created-By: Packages"))?;
    let codename = codename()?;
    targets
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(3) == Some(&"main") && words[1..3].contains(&codename.as_str()))
        .map(|words| words[0].to_owned())
        .ok_or_else(|| anyhow!("apt's sources name no mirror of Debian {codename}; run apt-get update first"))
}

/// The machine's own release, such as `bookworm`.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| anyhow!("/etc/os-release has no VERSION_CODENAME: is this Debian?"))
}
