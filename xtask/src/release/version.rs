//! Versions of three numbers, and their places in cargo's files.

use anyhow::{Context, Result, anyhow};
use std::fmt;
use std::str::FromStr;

/// A version of three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) [u32; 3]);

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Version> {
        let number = |part: &str| {
            let is_plain = part == "0" || !part.starts_with(['0', '+']);
            part.parse().ok().filter(|_| is_plain)
        };
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Version).ok_or_else(|| anyhow!("{text:?} is not a version: three numbers, such as 0.2.0"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// The workspace's `Cargo.toml` with another version.
pub(super) fn in_manifest(text: &str, version: Version) -> Result<String> {
    let (before, section) =
        text.split_once("[workspace.package]\n").context("Cargo.toml has no [workspace.package]")?;
    let line = section.lines().find(|line| line.starts_with("version = ") || line.starts_with('['));
    let line = line.filter(|line| !line.starts_with('[')).context("[workspace.package] has no version")?;
    let section = section.replacen(line, &format!("version = \"{version}\""), 1);
    Ok(format!("{before}[workspace.package]\n{section}"))
}

/// A `Cargo.lock` with another version of these packages, unless they come from a registry.
pub(super) fn in_lock(text: &str, names: &[String], version: Version) -> String {
    let changed = |block: &str| {
        let name = block.lines().find_map(|line| line.strip_prefix("name = "));
        let is_member = name.is_some_and(|name| names.iter().any(|member| name == format!("{member:?}")));
        if !is_member || block.contains("\nsource = ") {
            return block.to_owned();
        }
        let line = |line: &str| match line.starts_with("version = ") {
            true => format!("version = \"{version}\""),
            false => line.to_owned(),
        };
        block.split('\n').map(line).collect::<Vec<_>>().join("\n")
    };
    text.split("[[package]]").map(changed).collect::<Vec<_>>().join("[[package]]")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Version = Version([1, 10, 0]);

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("0.10.0") > parse("0.9.9"));
        assert!(parse("1.0.0") > parse("0.99.99"));
        assert_eq!(parse("0.1.0"), Version([0, 1, 0]));
        assert_eq!(NEW.to_string(), "1.10.0");
        for wrong in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3-rc1", "1.02.3", "1.+2.3", "1..3"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_workspaces_own_version_is_set() {
        let text = "[workspace]\n\n[workspace.package]\nedition = \"2024\"\nversion = \"0.1.0\"\n\n\
                    [workspace.dependencies]\nlog = { version = \"0.1.0\" }\n";
        let expected = text.replacen("version = \"0.1.0\"", "version = \"1.10.0\"", 1);
        assert_eq!(in_manifest(text, NEW).unwrap(), expected);
        assert!(in_manifest("[package]\nversion = \"0.1.0\"\n", NEW).is_err());
        assert!(in_manifest("[workspace.package]\n\n[x]\nversion = \"0.1.0\"\n", NEW).is_err());
    }

    #[test]
    fn a_lock_keeps_what_comes_from_a_registry() {
        let text = "version = 4\n\n[[package]]\nname = \"log\"\nversion = \"0.1.0\"\nsource = \"registry\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"log\",\n]\n\n\
                    [[package]]\nname = \"fuzz-libfuzzer\"\nversion = \"0.0.0\"\n";
        let expected = text.replacen("\"ours\"\nversion = \"0.1.0\"", "\"ours\"\nversion = \"1.10.0\"", 1);
        assert_eq!(in_lock(text, &["ours".to_owned(), "log".to_owned()], NEW), expected);
    }
}
