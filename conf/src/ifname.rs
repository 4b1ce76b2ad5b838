//! Interface names, as the kernel accepts them (`dev_valid_name`).

use crate::cni::error::CniError;
use crate::section::Section;

/// The longest interface name in bytes (`IFNAMSIZ` less the closing NUL).
pub const LONGEST: usize = 15;

/// Checks a name. The message names `key`.
///
/// # Errors
/// [`crate::cni::error::code::INVALID_CONFIG`]: empty, over 15 bytes, `.`, `..`, or with a slash, colon,
/// white space or control character.
pub fn check(key: &str, name: &str) -> Result<(), CniError> {
    check_length(key, name)?;
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(forbidden) {
        return Err(CniError::config(format!(
            "{key}: {name:?} is not an interface name: 1 to {LONGEST} bytes without '/', ':', spaces and control characters, not '.' or '..'"
        )));
    }
    Ok(())
}

/// Checks only the length of a derived name.
pub(crate) fn check_length(key: &str, name: &str) -> Result<(), CniError> {
    if name.len() > LONGEST {
        return Err(CniError::config(format!(
            "{key}: {name:?} has {} bytes, an interface name has at most {LONGEST}",
            name.len()
        )));
    }
    Ok(())
}

/// Reads the name of an interface. The empty string counts as absent, as in Go.
pub(crate) fn read(section: &Section<'_>, key: &str) -> Result<Option<String>, CniError> {
    let Some(name) = section.str(key)?.filter(|name| !name.is_empty()) else { return Ok(None) };
    check(&section.path(key), name)?;
    Ok(Some(name.to_owned()))
}
