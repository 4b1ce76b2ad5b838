//! The agent's signs of life: the file of its health, and messages to the service manager. Both mean that
//! passes over the node end. An error is told, and ends nothing.

use std::fmt;
use std::io;

use crate::health::Health;
use crate::keeper::Looked;
use crate::notify::Notifier;
use crate::report::Report;

/// All signs of this agent.
#[derive(Debug)]
pub(crate) struct Signs {
    health: Health,
    notifier: Notifier,
}

impl Signs {
    /// Finds the service manager.
    pub(crate) fn begin() -> io::Result<Signs> {
        Ok(Signs { health: Health::default(), notifier: Notifier::from_environment()? })
    }

    /// A pass has ended.
    pub(crate) fn looked(&mut self, looked: &Looked, tell: &mut dyn FnMut(&Report)) {
        told(self.health.note(looked), tell);
        told(self.health.write(), tell);
        told(self.notifier.looked(), tell);
    }

    /// Waits until a sign of life is due.
    pub(crate) async fn due(&self) {
        self.notifier.due().await;
    }

    /// Sends a sign of life if one is due, unless the last pass ended too long ago.
    pub(crate) fn keep_alive(&mut self, tell: &mut dyn FnMut(&Report)) {
        if self.notifier.is_due() {
            let works = self.health.is_fresh().unwrap_or(false);
            told(self.notifier.keep_alive(works), tell);
        }
    }

    /// The agent ends.
    pub(crate) fn end(&self, tell: &mut dyn FnMut(&Report)) {
        told(self.notifier.ends(), tell);
    }
}

fn told<E: fmt::Display>(outcome: Result<(), E>, tell: &mut dyn FnMut(&Report)) {
    if let Err(error) = outcome {
        tell(&Report::no_sign(&error));
    }
}
