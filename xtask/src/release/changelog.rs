//! Changes `CHANGELOG.md` for a release.

use super::version::Version;
use anyhow::{Context, Result, ensure};

const UNRELEASED: &str = "## Unreleased";

/// The newest version with a section of its own.
pub(super) fn newest(text: &str) -> Option<Version> {
    text.lines().filter_map(|line| line.strip_prefix("## [")?.split_once(']')?.0.parse().ok()).max()
}

/// Gives the unreleased section to a version, and adds an empty section above it.
pub(super) fn dated(text: &str, version: Version, date: &str) -> Result<String> {
    let heading = format!("\n{UNRELEASED}\n");
    let (before, after) =
        text.split_once(&heading).with_context(|| format!("CHANGELOG.md has no line {UNRELEASED:?}"))?;
    let section = after.split("\n## ").next().unwrap_or_default();
    ensure!(
        section.lines().any(|line| line.starts_with("- ")),
        "CHANGELOG.md has nothing under {UNRELEASED:?}: there is nothing to release"
    );
    Ok(format!("{before}{heading}\n## [{version}] - {date}\n{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version([0, 2, 0]);

    #[test]
    fn what_is_unreleased_gets_a_version_and_a_date() {
        let text =
            "# Changelog\n\n## Unreleased\n\n### Added\n\n- One.\n\n## [0.1.0] - 2026-01-02\n\n- Zero.\n";
        let expected = "# Changelog\n\n## Unreleased\n\n## [0.2.0] - 2026-03-04\n\n### Added\n\n- One.\n\n\
                        ## [0.1.0] - 2026-01-02\n\n- Zero.\n";
        let once = dated(text, VERSION, "2026-03-04").unwrap();
        assert_eq!(once, expected);
        assert_eq!((newest(text), newest(&once)), (Some(Version([0, 1, 0])), Some(VERSION)));
        // There is nothing to release.
        assert!(dated(&once, Version([0, 3, 0]), "2026-03-05").is_err());
    }

    #[test]
    fn nothing_to_release_is_an_error() {
        for text in [
            "# Changelog\n",
            "# Changelog\n\n## Unreleased\n",
            "# Changelog\n\n## Unreleased\n\n### Added\n\n## [0.1.0] - 2026-01-02\n\n- Zero.\n",
        ] {
            assert!(dated(text, VERSION, "2026-03-04").is_err(), "{text}");
            assert_eq!(newest(text).is_some(), text.contains("0.1.0"));
        }
    }
}
