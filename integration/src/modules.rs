//! All tests share the kernel's modules, but one test removes some. While it does, no other test has a node.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The number of nodes, and whether modules are removed.
struct State {
    nodes: usize,
    taken: bool,
}

static STATE: Mutex<State> = Mutex::new(State { nodes: 0, taken: false });
static CHANGED: Condvar = Condvar::new();

fn when(condition: impl Fn(&State) -> bool) -> MutexGuard<'static, State> {
    let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    CHANGED.wait_while(state, |state| !condition(state)).unwrap_or_else(PoisonError::into_inner)
}

/// A node's claim on the modules. Waits while some are removed.
#[derive(Debug)]
pub(crate) struct InUse(());

impl InUse {
    pub(crate) fn new() -> InUse {
        when(|state| !state.taken).nodes += 1;
        InUse(())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        when(|_| true).nodes -= 1;
        CHANGED.notify_all();
    }
}

/// Modules may be removed until this is dropped.
#[derive(Debug)]
pub struct ModulesTaken(());

impl ModulesTaken {
    /// Waits until the one node of the caller is the only one.
    pub fn from_my_node_alone() -> ModulesTaken {
        when(|state| state.nodes == 1 && !state.taken).taken = true;
        ModulesTaken(())
    }
}

impl Drop for ModulesTaken {
    fn drop(&mut self) {
        when(|_| true).taken = false;
        CHANGED.notify_all();
    }
}
