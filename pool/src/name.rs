//! Names of nodes, networks and workloads, as they stand in the store's values.

use std::fmt;
use std::sync::Arc;

/// The longest name in bytes: that of a Kubernetes node.
const LONGEST: usize = 253;

/// A name: letters, digits, `-`, `_` and `.`, and the first is a letter or a digit. These are the names of
/// nodes in Kubernetes and of networks in the CNI specification. So the signs between names in a value
/// (space, `/`, `#`) are in no name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A string that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of 1 to 253 letters, digits, -, _ and . that begins with a letter or a digit")]
pub struct NotAName(String);

impl Name {
    /// A checked name.
    ///
    /// # Errors
    /// Other characters, a first character that is neither a letter nor a digit, no or too many characters.
    pub fn new(text: &str) -> Result<Name, NotAName> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if begins && text.len() <= LONGEST && text.bytes().all(usual) {
            return Ok(Name(text.into()));
        }
        Err(NotAName(text.chars().take(LONGEST).collect()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_sign_that_separates_them() {
        for good in ["node-07", "7", "a.b_c-d", &"x".repeat(253)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".", "a b", "a/b", "a#1", "ä", &"x".repeat(254)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
