//! Lists that are whole. The kernel makes a list in parts, and marks it if the objects change in between
//! (`NLM_F_DUMP_INTR`): then it may lack objects or repeat some. An object that a list lacks would count as
//! gone, and what belongs to it would be removed.

use std::time::{Duration, Instant};

use super::{NetError, Result};

/// A list is asked for this often at least, and for this long, before that is an error.
const ATTEMPTS: usize = 10;
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A list as the kernel made it.
#[derive(Debug)]
pub(super) struct List<T> {
    pub(super) objects: Vec<T>,
    /// It may lack objects or repeat some.
    pub(super) interrupted: bool,
}

/// Asks for a list until it is whole.
///
/// # Errors
/// [`NetError::Changing`] if it never was. `action` names the request.
pub(super) fn whole<T>(
    action: impl FnOnce() -> String,
    mut ask: impl FnMut() -> Result<List<T>>,
) -> Result<Vec<T>> {
    let begun = Instant::now();
    for attempt in 1.. {
        let list = ask()?;
        if !list.interrupted {
            return Ok(list.objects);
        }
        if attempt >= ATTEMPTS && begun.elapsed() >= PATIENCE {
            break;
        }
    }
    Err(NetError::Changing { action: action() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_for_until_it_is_whole() {
        let mut asked = 0;
        let list = whole(
            || "list".into(),
            || {
                asked += 1;
                Ok(List { objects: vec![asked], interrupted: asked < 30 })
            },
        );
        assert_eq!(list.unwrap(), [30]);
    }

    #[test]
    fn a_list_that_never_is_whole_is_an_error() {
        let ask = || Ok(List { objects: vec![1], interrupted: true });
        let error = whole(|| "list interfaces".into(), ask).unwrap_err();
        assert!(!error.not_found() && !error.exists());
        let text = "list interfaces: what is listed kept changing for 1 s: no list was complete";
        assert_eq!(error.to_string(), text);
        let error = cni_conf::cni::error::CniError::from(error);
        assert_eq!(error.code, cni_conf::cni::error::code::TRY_AGAIN_LATER);
    }

    #[test]
    fn another_error_ends_the_attempts() {
        let ask = || -> Result<List<()>> { Err(NetError::gone("eth0")) };
        assert!(whole(|| "list".into(), ask).unwrap_err().not_found());
    }
}
