//! Undoes a failed operation. Code that makes a change registers how to undo it.

use std::fmt::Display;
use std::pin::Pin;

/// A future that undoes one change.
type Undo<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// The changes so far, in order: how to undo each, and its description.
#[derive(Default)]
pub struct UndoLog<'a>(Vec<(String, Undo<'a>)>);

impl<'a> UndoLog<'a> {
    /// Registers how to undo a change that was made, or is about to be made. `what` is the equivalent
    /// command.
    pub fn push<E: Display>(
        &mut self,
        what: impl Into<String>,
        undo: impl Future<Output = Result<(), E>> + 'a,
    ) {
        let undo = async move { undo.await.map_err(|e| e.to_string()) };
        self.0.push((what.into(), Box::pin(undo)));
    }

    /// Undoes the changes in reverse order. Failures are logged and do not stop it: the caller returns the
    /// error that caused the undo.
    pub async fn unwind(self) {
        for (what, undo) in self.0.into_iter().rev() {
            if let Err(e) = undo.await {
                log::error!("could not undo a step: {what}: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn steps_are_undone_in_reverse_order_and_one_that_fails_keeps_no_other() {
        let undone = RefCell::new(Vec::new());
        let mut log = UndoLog::default();
        for step in ["bridge", "port", "address"] {
            let undone = &undone;
            log.push(step, async move {
                undone.borrow_mut().push(step);
                if step == "port" { Err("busy") } else { Ok(()) }
            });
        }
        assert!(undone.borrow().is_empty(), "nothing is undone before it is asked for");
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(log.unwind());
        assert_eq!(*undone.borrow(), ["address", "port", "bridge"]);
    }
}
