//! apt for one release of Debian alone, by a configuration of our own: nothing system-wide changes.

use crate::command::output;
use crate::workspace;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::process::Command;

/// The options that make apt look at the source packages of the machine's own release.
pub(super) fn own_sources() -> Result<Vec<String>> {
    options("own-sources", "deb-src", &codename()?)
}

/// The same for those of sid.
pub(super) fn sid_sources() -> Result<Vec<String>> {
    options("sid-sources", "deb-src", "sid")
}

/// The options that make apt look at one suite alone, with lists and caches in a folder of that name under
/// the target folder.
pub(super) fn options(folder: &str, types: &str, suite: &str) -> Result<Vec<String>> {
    let dir = workspace::rig().join(folder);
    for sub in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let sources = dir.join("own.sources");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let mirror = mirror()?;
    let text =
        format!("Types: {types}\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n");
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

/// The mirror of this machine's own release. apt is asked, because only apt reads every form of its sources.
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
