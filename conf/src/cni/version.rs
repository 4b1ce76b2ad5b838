//! The versions of the specification, and the verbs of each.

use super::command::Command;
use super::error::{CniError, code};

/// A supported version of the CNI specification. They are ordered by publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// The version for answers if the caller's version is unknown.
    pub const NEWEST: Version = Version::V1_1_0;

    /// The version as `cniVersion` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// All versions in one line, for messages.
    pub fn list() -> String {
        Version::ALL.map(Version::as_str).join(", ")
    }

    /// Reads a version, by an exact match as the specification demands. The empty string is 0.1.0, which is
    /// older than the key `cniVersion`. libcni reads it the same way.
    ///
    /// # Errors
    /// [`code::INCOMPATIBLE_VERSION`]. The message names the supported versions.
    pub fn parse(text: &str) -> Result<Version, CniError> {
        if text.is_empty() {
            return Ok(Version::V0_1_0);
        }
        Version::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let msg = format!("cniVersion: {text:?} is not supported: one of {}", Version::list());
            CniError::new(code::INCOMPATIBLE_VERSION, msg)
        })
    }

    /// Whether a verb exists in this version: CHECK came with 0.4.0, GC and STATUS with 1.1.0.
    pub fn supports(self, command: Command) -> bool {
        match command {
            Command::Add | Command::Del | Command::Version => true,
            Command::Check => self >= Version::V0_4_0,
            Command::Gc | Command::Status => self >= Version::V1_1_0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_and_nothing_near_it() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Ok(version));
        }
        assert_eq!(Version::parse(""), Ok(Version::V0_1_0));
        for wrong in ["1.1", "1.1.1", "v1.1.0", "1.1.0 ", "2.0.0", "0.3"] {
            let error = Version::parse(wrong).unwrap_err();
            assert_eq!(error.code, code::INCOMPATIBLE_VERSION, "{wrong}");
            assert!(error.msg.contains("0.1.0, 0.2.0") && error.msg.contains(wrong), "{}", error.msg);
        }
    }

    #[test]
    fn knows_when_each_verb_appeared() {
        let check = |command, since: Option<Version>| {
            for version in Version::ALL {
                let expected = since.is_none_or(|since| version >= since);
                assert_eq!(version.supports(command), expected, "{command:?} {version:?}");
            }
        };
        check(Command::Add, None);
        check(Command::Del, None);
        check(Command::Version, None);
        check(Command::Check, Some(Version::V0_4_0));
        check(Command::Gc, Some(Version::V1_1_0));
        check(Command::Status, Some(Version::V1_1_0));
    }
}
